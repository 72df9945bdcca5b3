//! Whose word about a server's certificate is taken.

use std::fmt;

use futures_rustls::TlsConnector;
use futures_rustls::rustls::RootCertStore;
use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;

/// Certificates of those whose word about a server's certificate is taken.
#[derive(Clone)]
pub struct Roots(TlsConnector);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

/// Why certificates can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRoots(String);

impl fmt::Display for BadRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRoots {}

impl Roots {
    /// Those that the system trusts.
    ///
    /// # Errors
    /// If there are none.
    pub fn system() -> Result<Self, BadRoots> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let why = found.errors.first().map_or_else(|| String::from("there are none"), ToString::to_string);
            return Err(BadRoots(format!(
                "the system's trusted certificates can't be used ({why}): give a file of roots"
            )));
        }
        Ok(Self(crate::client::connector(roots)))
    }

    /// Only those in a PEM text, usually one private root.
    ///
    /// # Errors
    /// If it has none, or one that can't be read.
    pub fn pem(text: &[u8]) -> Result<Self, BadRoots> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate = certificate.map_err(|error| BadRoots(format!("this is no PEM file: {error}")))?;
            roots.add(certificate).map_err(|error| BadRoots(format!("a certificate can't be a root: {error}")))?;
        }
        if roots.is_empty() {
            return Err(BadRoots(String::from("the file has no certificate: it must have one in PEM form")));
        }
        Ok(Self(crate::client::connector(roots)))
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        self.0.clone()
    }
}
