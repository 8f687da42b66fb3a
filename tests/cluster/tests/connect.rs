//! The program audit-chain connects as libpq does: TLS, passwords, services, several hosts.
//!
//! The database has no audit_chain. To be told so means to be connected.

use harness::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONNECTED: &str = "this database has no audit_chain";

/// A server that demands a password over TLS, and files of the auditor.
struct Scene {
    server: Server,
    program: PathBuf,
    home: PathBuf,
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
}

/// A certificate and its key.
fn signed(by: &Issuer<'static, KeyPair>, common_name: &str, names: &[&str]) -> (String, String) {
    let mut params =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

impl Scene {
    fn new() -> Self {
        let status =
            Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "audit-chain"]).status();
        assert!(status.unwrap().success());
        let test = std::env::current_exe().unwrap();
        let program = test.parent().and_then(Path::parent).unwrap().join("audit-chain");

        let mut server = Server::builder().tcp().start().unwrap();
        let home = server.directory().join("home");
        fs::create_dir(&home).unwrap();
        let (root, issuer) = authority("ours");
        let (certificate, key) = signed(&issuer, "db", &["localhost"]);
        for (name, text) in [("server.crt", &certificate), ("server.key", &key), ("root.crt", &root)] {
            let path = server.data_dir().join(name);
            write(&path, text);
            server.give(&path).unwrap();
        }
        let (old, old_key) = signed(&issuer, "localhost", &[]);
        let (own, own_key) = signed(&issuer, "auditor", &["auditor"]);
        for (name, text) in [
            ("root", root),
            ("other-root", authority("another").0),
            ("server", certificate),
            ("server-key", key),
            ("old", old),
            ("old-key", old_key),
            ("client", own),
            ("client-key", own_key),
        ] {
            write(&home.join(name), &text);
        }
        server
            .psql(
                "postgres",
                "CREATE ROLE auditor LOGIN PASSWORD 'secret:1'; CREATE ROLE plain LOGIN; CREATE DATABASE app",
            )
            .unwrap();
        let rules = "local all postgres trust\nlocal all all scram-sha-256\nhostssl cert all all cert\n\
                     hostssl all auditor all scram-sha-256\nhostnossl all plain all trust\nhost all postgres all trust\n";
        fs::write(server.data_dir().join("pg_hba.conf"), rules).unwrap();
        for (name, value) in [("ssl", "on"), ("ssl_ca_file", "root.crt")] {
            server.set_config(name, value).unwrap();
        }
        server.psql("postgres", "CREATE DATABASE cert").unwrap();
        server.restart().unwrap();
        Self { server, program, home }
    }

    /// Gives the server another certificate.
    fn use_certificate(&self, name: &str) {
        for (from, to) in [(name.to_owned(), "server.crt"), (format!("{name}-key"), "server.key")] {
            // Overwritten, not replaced: the file stays the server's own.
            fs::write(self.server.data_dir().join(to), fs::read(self.home.join(from)).unwrap()).unwrap();
        }
        self.server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }

    /// Runs a command on a source, which comes first of its arguments: the exit code, and everything that was
    /// printed. `$home` is the folder of the auditor's files, `$port` and `$socket` the server's port and
    /// folder.
    fn answer(&self, command: &str, source: &str, variables: &[(&str, &str)]) -> (i32, String) {
        let fill = |text: &str| {
            let text = text.replace("$port", &self.server.port().to_string());
            text.replace("$socket", self.server.directory().to_str().unwrap())
                .replace("$home", self.home.to_str().unwrap())
        };
        let mut program = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            program.env_remove(name);
        }
        let (command, rest) =
            command.split_once(' ').map_or((command, None), |(command, rest)| (command, Some(rest)));
        program.env("HOME", &self.home).args([command, &fill(source)]).args(rest);
        program.envs(variables.iter().map(|(name, value)| (name, fill(value))));
        let output = program.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    }

    /// What `verify` says of a database without a log.
    fn run(&self, connection: &str, variables: &[(&str, &str)]) -> String {
        let (status, answer) = self.answer("verify", connection, variables);
        assert_eq!(status, 2, "{connection}");
        answer
    }

    /// The answer on a terminal of its own, where somebody types the password, as people do after the
    /// terminal has stopped to show what they type.
    fn run_on_terminal(&self, connection: &str, typed: &str) -> String {
        let script = "import os, pty, sys, termios\n\
                      pid, terminal = pty.fork()\n\
                      if pid == 0: os.execv(sys.argv[1], sys.argv[1:-1])\n\
                      shown = b''\n\
                      while b': ' not in shown: shown += os.read(terminal, 1000)\n\
                      while termios.tcgetattr(terminal)[3] & termios.ECHO: pass\n\
                      os.write(terminal, sys.argv[-1].encode() + b'\\n')\n\
                      try:\n\
                      \x20while chunk := os.read(terminal, 1000): shown += chunk\n\
                      except OSError: pass\n\
                      print(shown.decode())";
        let connection = connection.replace("$port", &self.server.port().to_string());
        let mut command = Command::new("python3");
        command.args(["-c", script, self.program.to_str().unwrap(), "verify", &connection, typed]);
        command.env("HOME", &self.home).env_remove("PGPASSWORD").env_remove("PGPASSFILE");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[track_caller]
    fn connects(&self, connection: &str, variables: &[(&str, &str)]) -> String {
        let answer = self.run(connection, variables);
        assert!(answer.contains(CONNECTED), "{connection}: {answer}");
        answer
    }

    #[track_caller]
    fn fails(&self, connection: &str, variables: &[(&str, &str)], because: &str) {
        let answer = self.run(connection, variables);
        assert!(!answer.contains(CONNECTED) && answer.contains(because), "{connection}: {answer}");
    }
}

const PASSWORD: &[(&str, &str)] = &[("PGPASSWORD", "secret:1")];
const AUDITOR: &str = "host=localhost port=$port user=auditor dbname=app";

#[test]
fn the_program_connects_as_libpq_does() {
    let ssl = cluster_tests::server().psql("postgres", "SHOW ssl_library").unwrap();
    if ssl.is_empty() {
        cluster_tests::not_tested("connections with TLS, which the server does not support");
        return;
    }
    let scene = Scene::new();
    tls(&scene);
    passwords(&scene);
    certificates_of_the_client(&scene);
    services_and_hosts(&scene);
    what_is_not_supported(&scene);
    a_log_is_verified_over_tls(&scene);
}

fn a_log_is_verified_over_tls(scene: &Scene) {
    let sql = "CREATE EXTENSION audit_chain; CREATE TABLE account (id integer PRIMARY KEY);
               SELECT audit_enable('account'); INSERT INTO account SELECT generate_series(1, 1000);
               SELECT audit_checkpoint(); GRANT SELECT ON audit_log, audit_log_identity, audit_checkpoint_log,
               audit_checkpoint_span, audit_tile, audit_segment, audit_pruned_leaf, audit_erasure TO auditor";
    scene.server.psql("postgres", "CREATE DATABASE audited").unwrap();
    scene.server.psql("audited", sql).unwrap();
    let connection =
        AUDITOR.replace("dbname=app", "dbname=audited") + " sslmode=verify-full sslrootcert=$home/root";
    let (status, answer) = scene.answer("verify", &connection, PASSWORD);
    assert!(status == 0 && answer.starts_with("intact: 1010 entries"), "{answer}");
    let export = scene.home.join("export").to_str().unwrap().to_owned();
    let (status, answer) = scene.answer(&format!("export {export}"), &connection, PASSWORD);
    assert!(status == 0 && answer.starts_with("exported 1002 entries"), "{answer}");
    assert_eq!(scene.answer("verify", &export, &[]).0, 0);
}

fn tls(scene: &Scene) {
    let with = |parameters: &str| format!("{AUDITOR} {parameters}");
    // The auditor's connections must be encrypted; those of `plain` must not be.
    for mode in ["allow", "prefer", "require"] {
        scene.connects(&with(&format!("sslmode={mode}")), PASSWORD);
    }
    scene.connects(AUDITOR, PASSWORD);
    scene.fails(&with("sslmode=disable"), PASSWORD, "no encryption");
    let plain = "host=localhost port=$port user=plain dbname=app";
    for mode in ["disable", "allow", "prefer"] {
        scene.connects(&format!("{plain} sslmode={mode}"), &[]);
    }
    scene.fails(&format!("{plain} sslmode=require"), &[], "SSL encryption");

    scene.connects(&with("sslmode=verify-full sslrootcert=$home/root"), PASSWORD);
    scene.connects(&with("sslmode=verify-full"), &[PASSWORD[0], ("PGSSLROOTCERT", "$home/root")]);
    scene.connects(&with("sslmode=verify-ca sslrootcert=$home/root"), PASSWORD);
    let elsewhere = AUDITOR.replace("localhost", "127.0.0.1");
    scene.connects(&format!("{elsewhere} sslmode=verify-ca sslrootcert=$home/root"), PASSWORD);
    scene.fails(
        &format!("{elsewhere} sslmode=verify-full sslrootcert=$home/root"),
        PASSWORD,
        "not valid for name",
    );
    scene.connects(&with("hostaddr=127.0.0.1 sslmode=verify-full sslrootcert=$home/root"), PASSWORD);
    // A certificate without a list of names has its host as common name.
    scene.use_certificate("old");
    scene.connects(&with("sslmode=verify-full sslrootcert=$home/root"), PASSWORD);
    scene.connects(&with("sslmode=verify-full sslrootcert=$home/old"), PASSWORD);
    scene.fails(
        &format!("{elsewhere} sslmode=verify-full sslrootcert=$home/old"),
        PASSWORD,
        "not valid for name",
    );
    scene.use_certificate("server");
    // The server's own certificate may be the trusted one.
    scene.connects(&with("sslmode=verify-full sslrootcert=$home/server"), PASSWORD);
    for mode in ["require", "verify-ca", "verify-full"] {
        scene.fails(
            &with(&format!("sslmode={mode} sslrootcert=$home/other-root")),
            PASSWORD,
            "UnknownIssuer",
        );
    }
    scene.fails(&with("sslmode=verify-ca"), PASSWORD, "sslrootcert=FILE");
    scene.fails(&with("sslmode=verify-ca sslrootcert=$home/none"), PASSWORD, "none does not exist");
    scene.fails(&with("sslrootcert=system"), PASSWORD, "");
    scene.fails(&with("sslrootcert=system sslmode=require"), PASSWORD, "verify-full");
    scene.connects(&with("ssl_max_protocol_version=TLSv1.2 sslmode=require"), PASSWORD);
    scene.fails(&with("ssl_max_protocol_version=TLSv1.1"), PASSWORD, "TLS 1.2 and 1.3");

    // Without TLS, nothing can be bound to the channel.
    scene.connects(&with("channel_binding=require sslmode=require"), PASSWORD);
    scene.connects(&with("channel_binding=disable sslmode=require"), PASSWORD);
    scene.fails(&format!("{plain} channel_binding=require sslmode=disable"), PASSWORD, "channel binding");
}

fn passwords(scene: &Scene) {
    scene.fails(AUDITOR, &[], "PGPASSWORD");
    scene.fails(AUDITOR, &[("PGPASSWORD", "wrong")], "password authentication failed");
    let file = scene.home.join(".pgpass");
    write(&file, "localhost:*:app:auditor:secret\\:1\n");
    scene.connects(AUDITOR, &[]);
    scene.connects("postgres://auditor@localhost:$port/app", &[]);
    scene.fails(&AUDITOR.replace("localhost", "127.0.0.1"), &[], "PGPASSWORD");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    scene.fails(AUDITOR, &[], "chmod 600");
    fs::remove_file(file).unwrap();
    write(&scene.home.join("passwords"), "*:*:*:*:wrong\n");
    scene.fails(AUDITOR, &[("PGPASSFILE", "$home/passwords")], "the password is from");
    let answer = scene.run_on_terminal(AUDITOR, "secret:1");
    assert!(answer.contains("Password for user auditor") && answer.contains(CONNECTED), "{answer}");
    assert!(!answer.contains("secret"), "{answer}");
    let socket = "host=$socket port=$port user=auditor dbname=app";
    scene.connects(socket, PASSWORD);
    scene.connects(&format!("{socket} sslmode=verify-full"), PASSWORD);
}

fn certificates_of_the_client(scene: &Scene) {
    let cert = "host=localhost port=$port user=auditor dbname=cert sslmode=require";
    scene.connects(&format!("{cert} sslcert=$home/client sslkey=$home/client-key"), &[]);
    scene.fails(cert, &[], "certificate");
    scene.fails(&format!("{cert} sslcert=$home/client"), &[], "sslkey");
    let folder = scene.home.join(".postgresql");
    fs::create_dir(&folder).unwrap();
    for (from, to) in [("client", "postgresql.crt"), ("client-key", "postgresql.key"), ("root", "root.crt")] {
        fs::copy(scene.home.join(from), folder.join(to)).unwrap();
    }
    scene.connects(&cert.replace("require", "verify-full"), &[]);
    scene.fails(&format!("{cert} sslcertmode=disable"), &[], "certificate");
    fs::set_permissions(folder.join("postgresql.key"), fs::Permissions::from_mode(0o644)).unwrap();
    scene.fails(cert, &[], "chmod 600");
    fs::remove_dir_all(folder).unwrap();
}

fn services_and_hosts(scene: &Scene) {
    let service = format!("[audit]\n{}\nsslmode=require\n", AUDITOR.replace(' ', "\n"));
    let service = service.replace("$port", &scene.server.port().to_string());
    write(&scene.home.join(".pg_service.conf"), &service);
    scene.connects("service=audit", PASSWORD);
    scene.connects("postgres://", &[PASSWORD[0], ("PGSERVICE", "audit")]);
    scene.fails("service=none", PASSWORD, "\"none\"");
    let variables =
        [("PGHOST", "localhost"), ("PGPORT", "$port"), ("PGUSER", "postgres"), ("PGDATABASE", "app")];
    scene.connects("postgres://", &variables);
    scene.connects("", &variables);
    scene.fails("dbname=nonexistent", &variables, "\"nonexistent\" does not exist");

    // The first host does not answer, the second does.
    scene.connects("host=127.0.0.1,localhost port=1,$port user=auditor dbname=app", PASSWORD);
    scene.connects(
        "host=127.0.0.1,localhost port=1,$port user=auditor dbname=app load_balance_hosts=random",
        PASSWORD,
    );
    scene.connects("postgres://postgres@[::1]:1,localhost:$port/app", &[]);
    scene.fails("host=127.0.0.1,localhost port=1,2 user=x", &[], "127.0.0.1, port 1");
    let target = |wanted| format!("{AUDITOR} target_session_attrs={wanted}");
    for wanted in ["any", "read-write", "primary", "prefer-standby"] {
        scene.connects(&target(wanted), PASSWORD);
    }
    for wanted in ["standby", "read-only"] {
        scene.fails(&target(wanted), PASSWORD, "target_session_attrs");
    }
    scene.fails(&target("nonsense"), PASSWORD, "nonsense");
    scene.connects(
        &format!("{AUDITOR} options='-c work_mem=1MB' connect_timeout=9 keepalives_idle=9"),
        PASSWORD,
    );
}

fn what_is_not_supported(scene: &Scene) {
    scene.fails(&format!("{AUDITOR} gssencmode=require"), PASSWORD, "GSSAPI");
    scene.fails(AUDITOR, &[PASSWORD[0], ("PGREQUIREAUTH", "scram-sha-256")], "PGREQUIREAUTH");
    scene.fails(&format!("{AUDITOR} nonsense=1"), PASSWORD, "nonsense");
}
