//! From the texts of certificates and keys to what a handshake needs. Pure: whoever calls has read the files.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CipherSuite, NamedGroup, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

use super::clients::{Named, Unchecked};
use crate::web::{ClientCertificates, Curve, SUITES, TlsSettings, TlsVersion};

/// The texts that [`TlsSettings`] names.
#[derive(Clone)]
pub(crate) struct Material {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) client_authorities: Option<Vec<u8>>,
}

/// Which of the texts is wrong, and how. Nothing of a text is quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Certificate(String),
    Key(String),
    ClientAuthorities(String),
    Settings(String),
}

/// Puts together what a handshake needs.
pub(crate) fn server_config(settings: &TlsSettings, material: &Material) -> Result<Arc<ServerConfig>, Fault> {
    let chain = certificates(&material.certificate).map_err(Fault::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key)
        .map_err(|_not_a_key| Fault::Key("there is no private key in it, or it is encrypted".to_owned()))?;
    let provider = Arc::new(provider(settings));
    let unusable = |error: tokio_rustls::rustls::Error| Fault::Settings(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(settings))
        .map_err(unusable)?;
    let builder = match clients(settings, material, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        if matches!(error, tokio_rustls::rustls::Error::InconsistentKeys(_)) {
            Fault::Key("it does not belong to the certificate".to_owned())
        } else {
            Fault::Certificate(error.to_string())
        }
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = settings.our_order;
    Ok(Arc::new(config))
}

/// What looks at the certificates of clients; none where they are not asked for.
fn clients(
    settings: &TlsSettings,
    material: &Material,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Fault> {
    let authorities = match (settings.clients, &material.client_authorities) {
        (ClientCertificates::Requested, _) => return Ok(Some(Arc::new(Unchecked { mandatory: false, provider }))),
        (ClientCertificates::Any, _) => return Ok(Some(Arc::new(Unchecked { mandatory: true, provider }))),
        (ClientCertificates::None, _) | (_, None) => return Ok(None),
        (ClientCertificates::IfGiven | ClientCertificates::Required, Some(authorities)) => authorities,
    };
    let wrong = Fault::ClientAuthorities;
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities).map_err(wrong)? {
        roots.add(authority).map_err(|error| wrong(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let optional = settings.clients == ClientCertificates::IfGiven && settings.client_names.is_empty();
    let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
    let signed = verifier.build().map_err(|error| wrong(error.to_string()))?;
    if settings.client_names.is_empty() {
        return Ok(Some(signed));
    }
    Ok(Some(Arc::new(Named { names: settings.client_names.clone(), signed })))
}

/// The certificates of a text, the first one that of the server.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err("there is no certificate in it".to_owned()),
    }
}

fn versions(settings: &TlsSettings) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &TLS13), (TlsVersion::Tls12, &TLS12)];
    let (lowest, highest) = settings.versions;
    all.into_iter().filter(|(version, _)| (lowest..=highest).contains(version)).map(|(_, spoken)| spoken).collect()
}

/// The suites and groups that the settings leave, the best first.
fn provider(settings: &TlsSettings) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !settings.suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        let (newer, older): (Vec<_>, Vec<_>) = all.into_iter().partition(|suite| suite.tls13().is_some());
        let chosen = settings.suites.iter().filter_map(|name| older.iter().find(|suite| name_of(suite) == Some(*name)));
        provider.cipher_suites = newer.iter().chain(chosen).copied().collect();
    }
    if !settings.curves.is_empty() {
        let all = std::mem::take(&mut provider.kx_groups);
        let group = |curve: &Curve| all.iter().find(|group| group.name() == named(*curve)).copied();
        provider.kx_groups = settings.curves.iter().filter_map(group).collect::<Vec<&'static dyn SupportedKxGroup>>();
    }
    provider
}

fn named(curve: Curve) -> NamedGroup {
    match curve {
        Curve::X25519 => NamedGroup::X25519,
        Curve::P256 => NamedGroup::secp256r1,
        Curve::P384 => NamedGroup::secp384r1,
    }
}

/// The name of a suite of TLS 1.2 as the configuration writes it.
fn name_of(suite: &SupportedCipherSuite) -> Option<&'static str> {
    let suites = [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    suites.into_iter().zip(SUITES).find(|(known, _)| *known == suite.suite()).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_and_curve_that_can_be_chosen_is_there() {
        let settings = |suite: &'static str, curve| TlsSettings {
            certificate: pem(),
            key: pem(),
            clients: ClientCertificates::None,
            client_authorities: None,
            client_names: std::collections::BTreeSet::new(),
            versions: (TlsVersion::Tls12, TlsVersion::Tls13),
            suites: vec![suite],
            curves: vec![curve],
            our_order: true,
        };
        for suite in SUITES {
            for curve in [Curve::X25519, Curve::P256, Curve::P384] {
                let provider = provider(&settings(suite, curve));
                let older: Vec<_> = provider.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).collect();
                assert_eq!(older.iter().filter_map(|suite| name_of(suite)).collect::<Vec<_>>(), [suite]);
                assert_eq!(provider.cipher_suites.len(), 4, "those of TLS 1.3 stay");
                assert_eq!(provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>(), [named(curve)]);
            }
        }
    }

    fn pem() -> crate::web::Pem {
        crate::web::Pem { key: "", line: 0, source: crate::web::PemSource::Inline(String::new()) }
    }
}
