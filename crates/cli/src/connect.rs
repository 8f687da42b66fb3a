//! A connection to a server, made as libpq makes it.
//!
//! * [`parameters`]: what is known of it: connection string, service file, environment.
//! * [`passfile`]: passwords that are kept in a file.
//! * [`tls`]: whose certificate is accepted, and the client's own.
//!
//! **Invariant**: a password is not sent over an unencrypted connection after the server has refused it over
//! TLS, and a host that does not prove its identity as `sslmode` demands is not spoken to.

pub mod parameters;
pub mod passfile;
pub mod tls;

use crate::{
    outcome::{OrFailure, Result, unchecked},
    output,
};
use parameters::{Parameters, Surroundings};
use postgres::{
    Client, Config, NoTls,
    config::{ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation},
    error::SqlState,
};
use std::{
    error::Error,
    io::{self, IsTerminal},
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The port of a server that names none.
const PORT: u16 = 5432;

/// Where servers put their sockets: Debian's folder, and PostgreSQL's own.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One place where the server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// The name, as given; a folder of sockets begins with a slash.
    name: Option<String>,
    address: Option<IpAddr>,
    port: u16,
}

impl Host {
    /// The folder of its socket, if it is reached through one.
    fn socket_folder(&self) -> Option<PathBuf> {
        match (&self.name, self.address) {
            (Some(name), None) if name.starts_with('/') => Some(name.into()),
            (None, None) => {
                let has_socket =
                    |folder: &&&str| Path::new(folder).join(format!(".s.PGSQL.{}", self.port)).exists();
                let folder = SOCKET_FOLDERS.iter().find(has_socket);
                Some(folder.unwrap_or(&SOCKET_FOLDERS[0]).into())
            }
            _ => None,
        }
    }

    /// The name by which password files know it.
    fn in_passfile(&self) -> String {
        match (&self.name, self.address) {
            (Some(name), _) if !SOCKET_FOLDERS.contains(&name.as_str()) => name.clone(),
            (None, Some(address)) => address.to_string(),
            _ => "localhost".into(),
        }
    }

    fn shown(&self) -> String {
        match (self.socket_folder(), &self.name, self.address) {
            (Some(folder), ..) => format!("the socket {}/.s.PGSQL.{}", folder.display(), self.port),
            (None, Some(name), _) => format!("{name}, port {}", self.port),
            (None, None, address) => {
                format!("{}, port {}", address.map_or_else(String::new, |a| a.to_string()), self.port)
            }
        }
    }

    fn all(parameters: &Parameters) -> Result<Vec<Self>> {
        let (names, addresses) = (parameters.list("host"), parameters.list("hostaddr"));
        let ports = parameters.list("port");
        let count = names.len().max(addresses.len()).max(1);
        if (!names.is_empty() && !addresses.is_empty() && names.len() != addresses.len())
            || (ports.len() > 1 && ports.len() != count)
        {
            return unchecked("the connection has not as many ports or addresses as hosts");
        }
        let given = |list: &[&str], at: usize| {
            list.get(at).filter(|value| !value.is_empty()).map(|&value| value.to_owned())
        };
        let host = |at| {
            let port = given(&ports, if ports.len() == 1 { 0 } else { at });
            let port =
                port.map_or(Ok(PORT), |port| port.parse().or_unchecked(format!("invalid port {port:?}")))?;
            let address = given(&addresses, at)
                .map(|address| address.parse().or_unchecked(format!("invalid hostaddr {address:?}")));
            let name = given(&names, at);
            if name.as_ref().is_some_and(|name| name.starts_with('@')) {
                return unchecked("audit-chain does not support abstract sockets");
            }
            Ok(Self { name, address: address.transpose()?, port })
        };
        (0..count).map(host).collect()
    }
}

/// Which of several servers is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

impl Wanted {
    /// What is tried, one after the other.
    fn parse(value: Option<&str>) -> Result<Vec<Self>> {
        Ok(match value.unwrap_or("any") {
            "any" => vec![Self::Any],
            "read-write" => vec![Self::ReadWrite],
            "read-only" => vec![Self::ReadOnly],
            "primary" => vec![Self::Primary],
            "standby" => vec![Self::Standby],
            "prefer-standby" => vec![Self::Standby, Self::Any],
            other => return unchecked(format!("invalid target_session_attrs {other:?}")),
        })
    }

    fn accepts(self, client: &mut Client) -> std::result::Result<bool, postgres::Error> {
        if self == Self::Any {
            return Ok(true);
        }
        let row = client.query_one(
            "SELECT pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on',
                    pg_catalog.pg_is_in_recovery()",
            &[],
        )?;
        let (read_only, standby): (bool, bool) = (row.get(0), row.get(1));
        Ok(match self {
            Self::Any => true,
            Self::ReadWrite => !read_only,
            Self::ReadOnly => read_only,
            Self::Primary => !standby,
            Self::Standby => standby,
        })
    }
}

/// How TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all.
    Disable,
    /// If the server does not accept anything else.
    Allow,
    /// If the server has it.
    Prefer,
    /// Always.
    Require,
    /// Always, and the certificate is signed by a trusted authority.
    VerifyCa,
    /// Always, and the certificate is the host's, too.
    VerifyFull,
}

impl Mode {
    fn parse(value: Option<&str>) -> Result<Option<Self>> {
        Ok(Some(match value {
            None => return Ok(None),
            Some("disable") => Self::Disable,
            Some("allow") => Self::Allow,
            Some("prefer") => Self::Prefer,
            Some("require") => Self::Require,
            Some("verify-ca") => Self::VerifyCa,
            Some("verify-full") => Self::VerifyFull,
            Some(other) => return unchecked(format!("invalid sslmode {other:?}")),
        }))
    }

    /// Whether each attempt is made with TLS.
    fn attempts(self) -> &'static [bool] {
        match self {
            Self::Disable => &[false],
            Self::Allow => &[false, true],
            Self::Prefer => &[true, false],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[true],
        }
    }
}

/// What all attempts share.
struct Connector {
    config: Config,
    mode: Mode,
    tls: Option<MakeRustlsConnect>,
    dbname: String,
    user: String,
    password: Option<String>,
    passfile: Option<PathBuf>,
    /// The password that was typed in.
    typed: Option<String>,
}

/// Connects to the first server that is as wanted.
pub fn connect(connection: &str) -> Result<Client> {
    let from = Surroundings::of_process();
    let parameters = Parameters::complete(connection, &from)?;
    let mut hosts = Host::all(&parameters)?;
    let wanted = Wanted::parse(parameters.get("target_session_attrs"))?;
    let mut connector = Connector::new(&parameters, &from, &hosts)?;
    match parameters.get("load_balance_hosts") {
        None | Some("disable") => {}
        Some("random") => {
            connector.config.load_balance_hosts(LoadBalanceHosts::Random);
            shuffle(&mut hosts)?;
        }
        Some(other) => return unchecked(format!("invalid load_balance_hosts {other:?}")),
    }
    let mut failures: Vec<String> = Vec::new();
    for wanted in wanted {
        for host in &hosts {
            match connector.try_host(host, wanted) {
                Ok(client) => return Ok(client),
                Err(failure) if failures.contains(&failure) => {}
                Err(failure) => failures.push(failure),
            }
        }
    }
    unchecked(failures.join("; "))
}

impl Connector {
    fn new(parameters: &Parameters, from: &Surroundings, hosts: &[Host]) -> Result<Self> {
        let user = match parameters.get("user") {
            Some(user) => user.to_owned(),
            None => whoami::username().or_unchecked("the name of this user of the system; give user=…")?,
        };
        let dbname = parameters.get("dbname").unwrap_or(&user).to_owned();
        if parameters.get("gssencmode") == Some("require") {
            return unchecked("audit-chain does not support GSSAPI encryption (gssencmode=require)");
        }
        let system_roots = parameters.get("sslrootcert") == Some("system");
        let default_mode = if system_roots { Mode::VerifyFull } else { Mode::Prefer };
        let mode = Mode::parse(parameters.get("sslmode"))?.unwrap_or(default_mode);
        if system_roots && mode != Mode::VerifyFull {
            return unchecked(
                "sslrootcert=system needs sslmode=verify-full: anyone can get a certificate from these",
            );
        }
        let over_tcp = hosts.iter().any(|host| host.socket_folder().is_none());
        let tls = if over_tcp && mode != Mode::Disable {
            Some(tls::connector(parameters, from, mode)?)
        } else {
            None
        };

        let mut config = Config::new();
        config.user(&user).dbname(&dbname);
        let name = parameters.get("application_name").or_else(|| parameters.get("fallback_application_name"));
        config.application_name(name.unwrap_or("audit-chain"));
        parameters.get("options").map(|options| config.options(options));
        config.channel_binding(match parameters.get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => return unchecked(format!("invalid channel_binding {other:?}")),
        });
        match parameters.get("sslnegotiation") {
            None | Some("postgres") => {}
            Some("direct") if mode >= Mode::Require => {
                config.ssl_negotiation(SslNegotiation::Direct);
            }
            Some("direct") => return unchecked("sslnegotiation=direct needs sslmode=require or stronger"),
            Some(other) => return unchecked(format!("invalid sslnegotiation {other:?}")),
        }
        if let Some(seconds) = number(parameters, "connect_timeout")?.filter(|seconds| *seconds > 0) {
            config.connect_timeout(Duration::from_secs(seconds.unsigned_abs().max(2)));
        }
        if let Some(milliseconds) = number(parameters, "tcp_user_timeout")?.filter(|time| *time > 0) {
            config.tcp_user_timeout(Duration::from_millis(milliseconds.unsigned_abs()));
        }
        config.keepalives(number(parameters, "keepalives")? != Some(0));
        if let Some(seconds) = number(parameters, "keepalives_idle")?.filter(|seconds| *seconds > 0) {
            config.keepalives_idle(Duration::from_secs(seconds.unsigned_abs()));
        }
        if let Some(seconds) = number(parameters, "keepalives_interval")?.filter(|seconds| *seconds > 0) {
            config.keepalives_interval(Duration::from_secs(seconds.unsigned_abs()));
        }
        if let Some(count) =
            number(parameters, "keepalives_count")?.and_then(|count| u32::try_from(count).ok())
        {
            config.keepalives_retries(count);
        }
        Ok(Self {
            config,
            mode,
            tls,
            dbname,
            user,
            password: parameters.get("password").map(str::to_owned),
            passfile: parameters.get("passfile").map(PathBuf::from).or_else(|| from.home(".pgpass")),
            typed: None,
        })
    }

    fn try_host(&mut self, host: &Host, wanted: Wanted) -> std::result::Result<Client, String> {
        let shown = |what: String| format!("cannot connect to {}: {what}", host.shown());
        let mut client = self.try_modes(host).map_err(shown)?;
        match wanted.accepts(&mut client) {
            Ok(true) => Ok(client),
            Ok(false) => Err(shown("the server is not as target_session_attrs demands".into())),
            Err(error) => Err(shown(described(&error))),
        }
    }

    fn try_modes(&mut self, host: &Host) -> std::result::Result<Client, String> {
        let attempts = if host.socket_folder().is_some() { &[false][..] } else { self.mode.attempts() };
        let mut failures = Vec::new();
        for &with_tls in attempts {
            match self.try_once(host, with_tls) {
                Ok(client) => return Ok(client),
                Err((what, final_)) => {
                    failures.push(what);
                    if final_ {
                        break;
                    }
                }
            }
        }
        failures.dedup();
        Err(failures.join("; "))
    }

    /// One attempt; of a failure, whether another attempt at the same host is of no use.
    fn try_once(&mut self, host: &Host, with_tls: bool) -> std::result::Result<Client, (String, bool)> {
        let (mut password, mut from_file) = (self.password.clone().or_else(|| self.typed.clone()), false);
        if let (None, Some(file)) = (&password, &self.passfile) {
            match passfile::look_up(file, &host.in_passfile(), host.port, &self.dbname, &self.user) {
                passfile::Found::Password(found) => (password, from_file) = (Some(found), true),
                passfile::Found::Nothing => {}
                passfile::Found::Refused(why) => output::warn(&why),
            }
        }
        loop {
            match self.start(host, with_tls, password.as_deref()) {
                Ok(client) => return Ok(client),
                Err(error) if password.is_none() && wants_password(&error) => {
                    let typed = self.ask(host).map_err(|failure| (failure.to_string(), true))?;
                    self.typed = Some(typed.clone());
                    password = Some(typed);
                }
                Err(error) => {
                    let mut what = described(&error);
                    if let (true, Some(file)) = (from_file && is_password_wrong(&error), &self.passfile) {
                        what += &format!(" (the password is from {})", file.display());
                    }
                    return Err((what, is_final(&error)));
                }
            }
        }
    }

    fn start(
        &self,
        host: &Host,
        with_tls: bool,
        password: Option<&str>,
    ) -> std::result::Result<Client, postgres::Error> {
        let mut config = self.config.clone();
        config.port(host.port);
        password.map(|password| config.password(password));
        match (host.socket_folder(), &host.name, host.address) {
            (Some(folder), ..) => config.host_path(folder),
            (None, Some(name), None) => config.host(name),
            (None, Some(name), Some(address)) => config.host(name).hostaddr(address),
            (None, None, Some(address)) => config.host(&address.to_string()).hostaddr(address),
            (None, None, None) => &mut config,
        };
        match self.tls.clone().filter(|_| with_tls) {
            Some(tls) => config.ssl_mode(SslMode::Require).connect(tls),
            None => {
                config.ssl_mode(SslMode::Disable).ssl_negotiation(SslNegotiation::Postgres).connect(NoTls)
            }
        }
    }

    /// Asks whoever sits at the terminal.
    fn ask(&self, host: &Host) -> Result<String> {
        if !io::stderr().is_terminal() {
            return unchecked(
                "the server asks for a password; set PGPASSWORD, put it into ~/.pgpass (PGPASSFILE), or run the program \
                 on a terminal",
            );
        }
        let prompt = format!("Password for user {} at {}: ", self.user, host.shown());
        rpassword::prompt_password(output::escape(&prompt)).or_unchecked("the password")
    }
}

/// Puts hosts in an order that nobody chose. A slight preference, of one in four billion, is no matter.
fn shuffle(hosts: &mut [Host]) -> Result<()> {
    for last in (1..hosts.len()).rev() {
        let random = getrandom::u32().or_unchecked("no randomness")?;
        hosts.swap(last, random as usize % (last + 1));
    }
    Ok(())
}

fn number(parameters: &Parameters, name: &str) -> Result<Option<i64>> {
    let value = parameters.get(name);
    value.map(|value| value.trim().parse().or_unchecked(format!("invalid {name} {value:?}"))).transpose()
}

fn wants_password(error: &postgres::Error) -> bool {
    error.source().is_some_and(|source| source.to_string() == "password missing")
}

fn is_password_wrong(error: &postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_PASSWORD)
}

/// Whether the same host would answer an attempt with or without TLS in the same way. A server that has no
/// rule for a connection may have one for the other kind.
fn is_final(error: &postgres::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
    if let Some(code) = error.code() {
        return *code != SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    }
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    io.is_some_and(|io| {
        matches!(io.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotFound | TimedOut)
    })
}

/// An error of the server or the connection, with its causes.
#[must_use]
pub fn described(error: &postgres::Error) -> String {
    fn chain(error: &dyn Error) -> String {
        match error.source() {
            Some(source) => format!("{error}: {}", chain(source)),
            None => error.to_string(),
        }
    }
    match error.as_db_error() {
        Some(error) => error.to_string(),
        None if error.source().is_some_and(|source| source.to_string() == "unsupported authentication method") => {
            "the server asks for an authentication method that audit-chain does not support (GSSAPI, SSPI); it supports \
             passwords (SCRAM-SHA-256, MD5, plain), certificates, peer, ident and trust"
                .into()
        }
        None if is_untrusted(error) => format!(
            "{} (sslrootcert names the certificates that you trust, sslmode what is compared)",
            chain(error)
        ),
        None => chain(error),
    }
}

/// Whether the server's certificate was refused.
fn is_untrusted(error: &postgres::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let tls = io.and_then(|io| io.get_ref()).and_then(|source| source.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(connection: &str) -> Result<Vec<Host>> {
        Host::all(&Parameters::parse(connection).unwrap())
    }

    #[test]
    fn hosts_addresses_and_ports_go_together() {
        let host = |name: Option<&str>, address: Option<&str>, port| Host {
            name: name.map(str::to_owned),
            address: address.map(|address| address.parse().unwrap()),
            port,
        };
        for (connection, expected) in [
            ("", vec![host(None, None, 5432)]),
            ("host=a,b port=1,", vec![host(Some("a"), None, 1), host(Some("b"), None, 5432)]),
            ("host=a,/s port=7", vec![host(Some("a"), None, 7), host(Some("/s"), None, 7)]),
            ("host=a hostaddr=::1", vec![host(Some("a"), Some("::1"), 5432)]),
            ("hostaddr=10.0.0.1", vec![host(None, Some("10.0.0.1"), 5432)]),
        ] {
            assert_eq!(hosts(connection).unwrap(), expected, "{connection}");
        }
        for wrong in
            ["host=a,b hostaddr=::1", "host=a port=1,2", "port=x", "port=70000", "hostaddr=db", "host=@x"]
        {
            assert!(hosts(wrong).is_err(), "{wrong}");
        }
        let ordered = hosts("host=a,b,c,d").unwrap();
        let shuffled = || {
            let mut hosts = ordered.clone();
            shuffle(&mut hosts).unwrap();
            hosts
        };
        assert!((0..100).map(|_| shuffled()).any(|hosts| hosts != ordered));
        assert!(ordered.iter().all(|host| shuffled().contains(host)));
        assert_eq!(hosts("host=/tmp").unwrap()[0].in_passfile(), "localhost");
        assert_eq!(hosts("host=/x").unwrap()[0].in_passfile(), "/x");
        assert_eq!(hosts("hostaddr=::1").unwrap()[0].in_passfile(), "::1");
    }
}
