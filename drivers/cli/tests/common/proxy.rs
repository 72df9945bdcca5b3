//! What stands between a client and a server: it cuts connections, or speaks TLS.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use async_executor::LocalExecutor;
use async_io::{Async, block_on};
use futures_lite::future::or;
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, io};
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use futures_rustls::rustls::{ServerConfig, crypto::ring};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Breaks each connection to `to` after so many bytes, both ways counted together; when there are no more numbers, none.
/// Returns where it listens.
pub(crate) fn cutting(to: SocketAddr, cuts: impl IntoIterator<Item = usize, IntoIter: Send + 'static>) -> SocketAddr {
    let mut cuts = cuts.into_iter();
    listen(async move |executor, client| {
        let left = cuts.next().unwrap_or(usize::MAX);
        executor.spawn(async move { _ = between(client, to, left).await }).detach();
    })
}

/// Speaks TLS for the server at `to`. Returns where it listens.
pub(crate) fn tls(to: SocketAddr, acceptor: TlsAcceptor) -> SocketAddr {
    listen(async move |executor, client| {
        let acceptor = acceptor.clone();
        let passing = async move {
            // Whoever does not trust it breaks off.
            if let Ok(client) = acceptor.accept(client).await {
                let _ = between(client, to, usize::MAX).await;
            }
        };
        executor.spawn(passing).detach();
    })
}

fn listen(mut each: impl AsyncFnMut(&LocalExecutor<'static>, Async<TcpStream>) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let executor = LocalExecutor::new();
        block_on(executor.run(async {
            let listener = Async::new(listener).expect("a socket");
            while let Ok((client, _)) = listener.accept().await {
                each(&executor, client).await;
            }
        }));
    });
    address
}

/// Passes bytes on both ways, until one end closes or so many have passed.
async fn between(client: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr, left: usize) -> io::Result<()> {
    let server = Async::<TcpStream>::connect(to).await?;
    let left = Cell::new(left);
    let ((from_client, to_client), (from_server, to_server)) = (io::split(client), io::split(server));
    or(pass(from_client, to_server, &left), pass(from_server, to_client, &left)).await
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, left: &Cell<usize>) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    while left.get() > 0 {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.close().await;
        }
        let passes = count.min(left.get());
        left.set(left.get() - passes);
        to.write_all(&buffer[..passes]).await?;
        to.flush().await?;
    }
    Ok(())
}

// -------------------------------------------------------------------------------------------- certificates

/// Somebody whose word about servers can be taken.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its certificate, as a file has it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a server needs to say that it is `name`.
    pub(crate) fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a good name");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("key and certificate fit");
        TlsAcceptor::from(Arc::new(config))
    }
}
