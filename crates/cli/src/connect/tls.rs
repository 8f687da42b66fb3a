//! TLS: which server is believed, and the client's own certificate. The files and their defaults are libpq's.
//!
//! **Invariant**: if there are trusted certificates, the server's certificate must follow from one of them,
//! whatever `sslmode` is. With `verify-full` it must be that of the host, too.

use super::{
    Mode,
    parameters::{Parameters, Surroundings},
};
use crate::outcome::{OrFailure, Result, unchecked};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject,
    },
    server::ParsedCertificate,
    version::{TLS12, TLS13},
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::der::{Decode, oid::ObjectIdentifier};

/// What makes a TLS connection of a TCP connection.
pub fn connector(parameters: &Parameters, from: &Surroundings, mode: Mode) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Verifier::new(parameters, from, mode, &provider)?);
    let versions = versions(parameters)?;
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&versions).or_unchecked("TLS")?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity(parameters, from)? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).or_unchecked("the client's certificate")?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    config.enable_sni = parameters.get("sslsni") != Some("0");
    Ok(MakeRustlsConnect::new(config))
}

fn versions(parameters: &Parameters) -> Result<Vec<&'static rustls::SupportedProtocolVersion>> {
    let version = |name: &str, default: u8| {
        Ok(match parameters.get(name) {
            None => default,
            Some("TLSv1") => 0,
            Some("TLSv1.1") => 1,
            Some("TLSv1.2") => 2,
            Some("TLSv1.3") => 3,
            Some(other) => return unchecked(format!("invalid {name} {other:?}")),
        })
    };
    let range = version("ssl_min_protocol_version", 2)?..=version("ssl_max_protocol_version", 3)?;
    let versions = [(2, &TLS12), (3, &TLS13)].into_iter().filter(|(number, _)| range.contains(number));
    let versions: Vec<_> = versions.map(|(_, version)| version).collect();
    if versions.is_empty() { unchecked("audit-chain supports TLS 1.2 and 1.3 only") } else { Ok(versions) }
}

/// The file of a parameter, or libpq's default for it; whether it was given.
fn file(parameters: &Parameters, from: &Surroundings, name: &str, default: &str) -> (Option<PathBuf>, bool) {
    match parameters.get(name) {
        Some(given) => (Some(given.into()), true),
        None => {
            (from.home(".postgresql").map(|folder| folder.join(default)).filter(|file| file.exists()), false)
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let what = || format!("the certificate file {}", file.display());
    let all = CertificateDer::pem_file_iter(file).or_unchecked(what())?;
    let all: Vec<_> = all.collect::<std::result::Result<_, _>>().or_unchecked(what())?;
    if all.is_empty() { unchecked(format!("{} has no certificate in it", what())) } else { Ok(all) }
}

/// The client's certificate and key, if it has them.
fn identity(
    parameters: &Parameters,
    from: &Surroundings,
) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    match parameters.get("sslcertmode") {
        None | Some("allow") => {}
        Some("disable") => return Ok(None),
        Some(other) => return unchecked(format!("audit-chain does not support sslcertmode={other}")),
    }
    let (Some(certificate), _) = file(parameters, from, "sslcert", "postgresql.crt") else { return Ok(None) };
    let chain = certificates(&certificate)?;
    let (Some(key), _) = file(parameters, from, "sslkey", "postgresql.key") else {
        return unchecked(format!("{} has no private key beside it; give sslkey=…", certificate.display()));
    };
    let metadata = fs::metadata(&key).or_unchecked(key.display())?;
    let too_open = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & too_open != 0 {
        return unchecked(format!(
            "the private key {} has group or world access; run: chmod 600 {0}",
            key.display()
        ));
    }
    let what = format!("{} must hold a private key in PEM without a passphrase", key.display());
    Ok(Some((chain, PrivateKeyDer::from_pem_file(&key).or_unchecked(what)?)))
}

/// Decides whether a server's certificate is accepted.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` if nothing is known that a certificate could follow from.
    trusted: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted certificates, one of which may be the server's own.
    roots: Vec<CertificateDer<'static>>,
    /// Whether the name of the host is compared.
    name: bool,
}

impl Verifier {
    fn new(
        parameters: &Parameters,
        from: &Surroundings,
        mode: Mode,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self> {
        let (root_file, _) = file(parameters, from, "sslrootcert", "root.crt");
        let roots = match root_file {
            Some(file) if file == Path::new("system") => {
                let found = rustls_native_certs::load_native_certs();
                if found.certs.is_empty() {
                    return unchecked("the system has no trusted certificates (sslrootcert=system)");
                }
                found.certs
            }
            Some(file) if file.exists() => certificates(&file)?,
            _ if mode < Mode::VerifyCa => Vec::new(),
            file => {
                let file = file.unwrap_or_else(|| "~/.postgresql/root.crt".into());
                return unchecked(format!(
                    "sslmode=verify-ca and verify-full need the certificates that you trust, but {} does not exist; \
                     give sslrootcert=FILE, or sslrootcert=system for those of this system",
                    file.display()
                ));
            }
        };
        let name = mode == Mode::VerifyFull;
        if roots.is_empty() {
            return Ok(Self { provider: provider.clone(), trusted: None, roots, name });
        }
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return unchecked("none of the trusted certificates can be read");
        }
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
        if let (Some(file), given) = file(parameters, from, "sslcrl", "root.crl")
            && (given || file.exists())
        {
            let what = || format!("the revocation list {}", file.display());
            let lists = CertificateRevocationListDer::pem_file_iter(&file).or_unchecked(what())?;
            builder =
                builder.with_crls(lists.collect::<std::result::Result<Vec<_>, _>>().or_unchecked(what())?);
        }
        let trusted = Some(builder.build().or_unchecked("the trusted certificates")?);
        Ok(Self { provider: provider.clone(), trusted, roots, name })
    }

    /// A server whose own certificate is among the trusted ones, as a self-signed one is: webpki wants an
    /// authority.
    fn check_own(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> std::result::Result<(), Error> {
        let bad = |error| Error::InvalidCertificate(error);
        let parsed =
            x509_cert::Certificate::from_der(certificate).map_err(|_| bad(CertificateError::BadEncoding))?;
        let validity = parsed.tbs_certificate.validity;
        if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
            return Err(bad(CertificateError::NotValidYet));
        }
        if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
            return Err(bad(CertificateError::Expired));
        }
        if self.name && !is_common_name(certificate, name) {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(())
    }
}

/// Whether a certificate that lists no names is of this host by its common name, as libpq accepts it.
fn is_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else { return false };
    let parsed = parsed.tbs_certificate;
    if parsed.extensions.iter().flatten().any(|extension| extension.extn_id == SUBJECT_ALT_NAME) {
        return false;
    }
    let mut attributes = parsed.subject.0.iter().flat_map(|names| names.0.iter());
    let common = attributes.find(|attribute| attribute.oid == COMMON_NAME);
    let Some(common) = common.and_then(|common| std::str::from_utf8(common.value.value()).ok()) else {
        return false;
    };
    fits(common, &name.to_str())
}

/// Whether a name of a certificate, perhaps with a wildcard as its first label, is that of the host.
fn fits(pattern: &str, host: &str) -> bool {
    pattern.eq_ignore_ascii_case(host)
        || pattern.strip_prefix("*.").zip(host.split_once('.')).is_some_and(|(parent, (label, rest))| {
            !label.is_empty() && parent.contains('.') && parent.eq_ignore_ascii_case(rest)
        })
}

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else { return Ok(ServerCertVerified::assertion()) };
        match trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is compared last, after everything else was found right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name || is_common_name(end_entity, server_name) => {
                Ok(ServerCertVerified::assertion())
            }
            Err(Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
                if self.roots.contains(end_entity) =>
            {
                self.check_own(end_entity, server_name, now).map(|()| ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, host) in [("db", "DB"), ("*.example.org", "db.example.org"), ("10.0.0.1", "10.0.0.1")] {
            assert!(fits(pattern, host), "{pattern} {host}");
        }
        for (pattern, host) in [
            ("db", "db2"),
            ("*.example.org", "a.b.example.org"),
            ("*.example.org", "example.org"),
            ("*.org", "example.org"),
            ("*", "db"),
            ("d*.example.org", "db.example.org"),
            ("*.example.org", ".example.org"),
        ] {
            assert!(!fits(pattern, host), "{pattern} {host}");
        }
    }
}
