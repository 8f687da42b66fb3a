//! The parameters of a connection, from where libpq takes them: the connection string, then the service file,
//! then the environment.
//!
//! **Invariant**: a parameter that this program does not know, or cannot honor although it protects the
//! connection, is refused. None is ignored that asks for more safety.

use crate::outcome::{OrFailure, Result, unchecked};
use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What the program does with a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is honored.
    Honored,
    /// It makes no difference to this program.
    Ignored,
    /// Refused, unless it has this value.
    Only(&'static str),
}
use Use::{Honored, Ignored, Only};

/// libpq's parameters (PostgreSQL 18, `src/interfaces/libpq/fe-connect.c`) with the variable of each.
const KNOWN: &[(&str, &str, Use)] = &[
    ("application_name", "PGAPPNAME", Honored),
    ("channel_binding", "PGCHANNELBINDING", Honored),
    ("client_encoding", "PGCLIENTENCODING", Ignored),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Honored),
    ("dbname", "PGDATABASE", Honored),
    ("fallback_application_name", "", Honored),
    ("gssdelegation", "PGGSSDELEGATION", Only("0")),
    ("gssencmode", "PGGSSENCMODE", Honored),
    ("gsslib", "PGGSSLIB", Ignored),
    ("host", "PGHOST", Honored),
    ("hostaddr", "PGHOSTADDR", Honored),
    ("keepalives", "", Honored),
    ("keepalives_count", "", Honored),
    ("keepalives_idle", "", Honored),
    ("keepalives_interval", "", Honored),
    ("krbsrvname", "PGKRBSRVNAME", Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Honored),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Only("3.0")),
    ("oauth_client_id", "", Only("")),
    ("oauth_client_secret", "", Only("")),
    ("oauth_issuer", "", Only("")),
    ("oauth_scope", "", Only("")),
    ("options", "PGOPTIONS", Honored),
    ("passfile", "PGPASSFILE", Honored),
    ("password", "PGPASSWORD", Honored),
    ("port", "PGPORT", Honored),
    ("replication", "", Only("false")),
    ("require_auth", "PGREQUIREAUTH", Only("")),
    ("requirepeer", "PGREQUIREPEER", Only("")),
    ("scram_client_key", "", Only("")),
    ("scram_server_key", "", Only("")),
    ("service", "PGSERVICE", Honored),
    ("servicefile", "PGSERVICEFILE", Honored),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Honored),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Honored),
    ("sslcert", "PGSSLCERT", Honored),
    ("sslcertmode", "PGSSLCERTMODE", Honored),
    ("sslcompression", "PGSSLCOMPRESSION", Ignored),
    ("sslcrl", "PGSSLCRL", Honored),
    ("sslcrldir", "PGSSLCRLDIR", Only("")),
    ("sslkey", "PGSSLKEY", Honored),
    ("sslkeylogfile", "", Only("")),
    ("sslmode", "PGSSLMODE", Honored),
    ("sslnegotiation", "PGSSLNEGOTIATION", Honored),
    ("sslpassword", "", Only("")),
    ("sslrootcert", "PGSSLROOTCERT", Honored),
    ("sslsni", "PGSSLSNI", Honored),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Honored),
    ("tcp_user_timeout", "", Honored),
    ("user", "PGUSER", Honored),
];

/// Where the parameters that the connection string does not give come from.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    variables: BTreeMap<String, String>,
}

impl Surroundings {
    /// The process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(text).collect() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file in the user's home directory.
    #[must_use]
    pub fn home(&self, file: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| Path::new(home).join(file))
    }
}

/// The parameters of a connection.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// A parameter's value; an empty one counts as not given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter's value, one for each host.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map_or_else(Vec::new, |value| value.split(',').map(str::trim).collect())
    }

    /// Everything that is known of a connection string: what it gives, what its service gives, and the
    /// environment.
    pub fn complete(connection: &str, from: &Surroundings) -> Result<Self> {
        let mut parameters = Self::parse(connection)?;
        let service = parameters.get("service").or_else(|| from.get("PGSERVICE")).map(str::to_owned);
        if let Some(service) = service {
            parameters.add_service(&service, from)?;
        }
        for &(name, variable, _) in KNOWN {
            if let (None, Some(value)) = (parameters.0.get(name), from.get(variable)) {
                parameters.0.insert(name, value.to_owned());
            }
        }
        if !parameters.0.contains_key("sslmode")
            && from.get("PGREQUIRESSL").is_some_and(|on| on.starts_with('1'))
        {
            parameters.set("sslmode", "require".into())?;
        }
        for &(name, variable, honored) in KNOWN {
            let (Only(only), Some(value)) = (honored, parameters.get(name)) else { continue };
            if value != only {
                let variable = if variable.is_empty() {
                    String::new()
                } else {
                    format!(" (environment variable {variable})")
                };
                return unchecked(format!(
                    "audit-chain does not support the connection parameter {name}{variable}; remove it, or make an \
                     export with it on the server"
                ));
            }
        }
        Ok(parameters)
    }

    /// Reads a connection string of either form: `postgres://…` or `host=… dbname=…`.
    pub fn parse(connection: &str) -> Result<Self> {
        let mut parameters = Self::default();
        let uri = ["postgresql://", "postgres://"].iter().find_map(|scheme| connection.strip_prefix(scheme));
        match uri {
            Some(rest) => parameters.read_uri(rest)?,
            None => parameters.read_pairs(connection)?,
        }
        Ok(parameters)
    }

    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match KNOWN.iter().find(|known| known.0 == name) {
            Some(&(name, ..)) => {
                self.0.insert(name, value);
                Ok(())
            }
            None => unchecked(format!("invalid connection parameter {name:?}")),
        }
    }

    /// `name = value` pairs; a value may stand in single quotes, and a backslash makes the next character
    /// literal.
    fn read_pairs(&mut self, text: &str) -> Result<()> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let Some((name, after)) = rest.split_once('=') else {
                return unchecked("the connection string: missing \"=\" after a parameter");
            };
            let name = name.trim();
            if name.contains(char::is_whitespace) {
                return unchecked("the connection string: missing \"=\" after a parameter");
            }
            let after = after.trim_start();
            let quoted = after.starts_with('\'');
            let mut characters = after.char_indices().skip(usize::from(quoted));
            let (mut value, mut end, mut closed) = (String::new(), after.len(), !quoted);
            while let Some((at, character)) = characters.next() {
                match character {
                    '\\' => value.extend(characters.next().map(|(_, literal)| literal)),
                    '\'' if quoted => {
                        (end, closed) = (at + 1, true);
                        break;
                    }
                    space if !quoted && space.is_whitespace() => {
                        end = at;
                        break;
                    }
                    other => value.push(other),
                }
            }
            if !closed {
                return unchecked("the connection string: unterminated quoted string");
            }
            self.set(name, value)?;
            rest = after[end..].trim_start();
        }
        Ok(())
    }

    /// `[user[:password]@][host[:port],…][/dbname][?name=value&…]`.
    fn read_uri(&mut self, text: &str) -> Result<()> {
        let (text, query) = text.split_once('?').map_or((text, None), |(text, query)| (text, Some(query)));
        let (authority, dbname) =
            text.split_once('/').map_or((text, None), |(text, name)| (text, Some(name)));
        let hosts = match authority.rsplit_once('@') {
            None => authority,
            Some((credentials, hosts)) => {
                let (user, password) = credentials
                    .split_once(':')
                    .map_or((credentials, None), |(user, rest)| (user, Some(rest)));
                self.set_decoded("user", user)?;
                password.map_or(Ok(()), |password| self.set_decoded("password", password))?;
                hosts
            }
        };
        if !hosts.is_empty() {
            let (mut names, mut ports) = (Vec::new(), Vec::new());
            for host in hosts.split(',') {
                let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                    Some((name, rest)) => (name, rest.strip_prefix(':').unwrap_or(rest)),
                    None => host.split_once(':').unwrap_or((host, "")),
                };
                names.push(decode(name)?);
                ports.push(port);
            }
            self.set("host", names.join(","))?;
            if ports.iter().any(|port| !port.is_empty()) {
                self.set("port", ports.join(","))?;
            }
        }
        dbname.map_or(Ok(()), |name| self.set_decoded("dbname", name))?;
        for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return unchecked("the connection URI: missing \"=\" in its query");
            };
            match (decode(name)?.as_str(), decode(value)?) {
                ("ssl", value) if value == "true" => self.set("sslmode", "require".into())?,
                (name, value) => self.set(name, value)?,
            }
        }
        Ok(())
    }

    fn set_decoded(&mut self, name: &str, value: &str) -> Result<()> {
        if value.is_empty() { Ok(()) } else { self.set(name, decode(value)?) }
    }

    /// Adds what a service file says of a service and the connection string does not.
    fn add_service(&mut self, service: &str, from: &Surroundings) -> Result<()> {
        let own = self.get("servicefile").or_else(|| from.get("PGSERVICEFILE")).map(PathBuf::from);
        let own = own.or_else(|| from.home(".pg_service.conf"));
        let folders = from.get("PGSYSCONFDIR").map_or_else(
            || vec!["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc/pgsql"],
            |folder| vec![folder],
        );
        let shared = folders.into_iter().map(|folder| Path::new(folder).join("pg_service.conf"));
        for file in own.into_iter().chain(shared) {
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return unchecked(format!("the service file {}: {error}", file.display())),
            };
            if self.take_service(service, &text).or_unchecked(file.display())? {
                return Ok(());
            }
        }
        unchecked(format!("no service file defines the service {service:?}"))
    }

    /// Whether the text of a service file has the service.
    fn take_service(&mut self, service: &str, text: &str) -> Result<bool> {
        let (mut inside, mut found) = (false, false);
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                inside = !found && name.strip_suffix(']').unwrap_or(name) == service;
                found |= inside;
                continue;
            }
            if !inside {
                continue;
            }
            let number = number + 1;
            let Some((name, value)) = line.split_once('=') else {
                return unchecked(format!("line {number}: expected name=value"));
            };
            if name == "service" || name == "servicefile" || line.starts_with("ldap") {
                return unchecked(format!(
                    "line {number}: services in services, and LDAP, are not supported"
                ));
            }
            if !self.0.contains_key(name) {
                self.set(name, value.to_owned()).or_unchecked(format!("line {number}"))?;
            }
        }
        Ok(found)
    }
}

fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut decoded = [0];
        match after.split_at_checked(2) {
            Some((digits, after))
                if hex::decode_to_slice(digits, &mut decoded).is_ok() && decoded[0] != 0 =>
            {
                bytes.push(decoded[0]);
                rest = after;
            }
            _ => return unchecked("the connection URI: invalid percent-encoded character"),
        }
    }
    String::from_utf8(bytes).or_unchecked("the connection URI")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Surroundings { variables: variables.iter().map(own).collect() }
    }

    fn complete(connection: &str, variables: &[(&str, &str)]) -> Result<Vec<(&'static str, String)>> {
        Parameters::complete(connection, &surroundings(variables)).map(|found| found.0.into_iter().collect())
    }

    #[test]
    fn connection_strings_are_read_as_libpq_reads_them() {
        for (connection, expected) in [
            ("", &[][..]),
            ("host=db port = 5433  dbname='my db'", &[("dbname", "my db"), ("host", "db"), ("port", "5433")]),
            (
                r"user=o\'x password='a\'\\ b' options=",
                &[("options", ""), ("password", r"a'\ b"), ("user", "o'x")],
            ),
            ("postgres://", &[]),
            ("postgresql:///app", &[("dbname", "app")]),
            (
                "postgres://u%40x:p%3A:@db:5433/app?sslmode=verify-full&application_name=a%20b",
                &[
                    ("application_name", "a b"),
                    ("dbname", "app"),
                    ("host", "db"),
                    ("password", "p::"),
                    ("port", "5433"),
                    ("sslmode", "verify-full"),
                    ("user", "u@x"),
                ],
            ),
            (
                "postgres://a,[::1]:5,c:6/?ssl=true",
                &[("host", "a,::1,c"), ("port", ",5,6"), ("sslmode", "require")],
            ),
            ("postgres://%2Frun%2Fpg/app", &[("dbname", "app"), ("host", "/run/pg")]),
        ] {
            let found = complete(connection, &[]).unwrap();
            let found: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(found, expected, "{connection}");
        }
        for wrong in [
            "host",
            "host x=1",
            "host='x",
            "nonsense=1",
            "postgres://a?x",
            "postgres://a?nonsense=1",
            "postgres://%zz",
            "postgres://%0",
            "postgres://%00",
        ] {
            assert!(complete(wrong, &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_string_comes_before_the_service_and_the_service_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        fs::write(&file, "# ours\n[other]\nport=1\n[app]\nhost=service\nuser=service\n\n[app]\nport=2\n")
            .unwrap();
        let variables = |service| {
            [
                ("PGSERVICEFILE", file.to_str().unwrap()),
                ("PGSYSCONFDIR", folder.path().to_str().unwrap()),
                ("PGHOST", "variable"),
                ("PGDATABASE", "variable"),
                ("PGSERVICE", service),
            ]
        };
        let given =
            |connection, service| Parameters::complete(connection, &surroundings(&variables(service)));
        let found = given("user=string", "app").unwrap();
        assert_eq!(
            ["user", "host", "dbname", "port"].map(|name| found.get(name)),
            [Some("string"), Some("service"), Some("variable"), None]
        );
        assert_eq!(given("service=other", "").unwrap().get("port"), Some("1"));
        assert!(given("service=none", "").is_err_and(|error| error.to_string().contains("\"none\"")));
        fs::write(folder.path().join("pg_service.conf"), "[none]\nport=3\n[bad]\nx\n[worse]\nservice=app\n")
            .unwrap();
        assert_eq!(given("service=none", "").unwrap().get("port"), Some("3"));
        for bad in ["bad", "worse"] {
            assert!(given("", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_guide_names_what_is_refused() {
        let guide = include_str!("../../../../docs/auditor.md")
            .split_once("does not support, and says so")
            .unwrap()
            .1;
        let list = guide.split_once("\n\n").unwrap().0;
        for (name, _, use_) in KNOWN {
            let named = list.contains(&format!("`{name}`"))
                || list.contains("`oauth_…`") && name.starts_with("oauth_");
            assert_eq!(named, matches!(use_, Only(_)), "{name}");
        }
    }

    #[test]
    fn what_protects_a_connection_is_honored_or_refused() {
        for variables in [("PGREQUIREAUTH", "scram-sha-256"), ("PGREQUIREPEER", "postgres")] {
            let refused = complete("", &[variables]).unwrap_err().to_string();
            assert!(refused.contains(variables.0), "{refused}");
        }
        assert!(complete("sslcrldir=/x", &[]).is_err() && complete("replication=false", &[]).is_ok());
        assert_eq!(complete("", &[("PGREQUIRESSL", "1")]).unwrap(), [("sslmode", "require".to_owned())]);
    }
}
