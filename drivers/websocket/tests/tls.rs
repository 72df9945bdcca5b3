//! `wss://`: private roots, and certificates that are not accepted.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use antiphon::codes::Retry;
use antiphon_node::{Connector, Node};
use antiphon_websocket::{Client, Roots, Server, ServerConfig};
use async_io::Async;
use common::*;
use futures_rustls::TlsAcceptor;
use futures_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use futures_rustls::rustls::{ServerConfig as TlsConfig, crypto::ring};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// What a server needs to say that it is one of `names`, on the word of `authority`.
fn acceptor(authority: &CertifiedIssuer<'static, KeyPair>, names: &[&str]) -> TlsAcceptor {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("good names");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("key and certificate fit");
    TlsAcceptor::from(Arc::new(config))
}

/// Serves a node behind TLS: the server takes any byte stream.
fn serve_tls(node: &Node, acceptor: TlsAcceptor) -> SocketAddr {
    let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let address = listener.get_ref().local_addr().expect("it is bound");
    let (server, node) = (Server::new(ServerConfig::default()), node.clone());
    std::thread::spawn(move || {
        async_io::block_on(async {
            while let Ok((stream, peer)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let Ok((socket, options)) = server.handshake(stream, Some(peer), node.frame_max()).await else {
                    continue;
                };
                if node.accept(socket, options).is_err() {
                    return;
                }
            }
        });
    });
    address
}

#[test]
fn a_private_root_is_trusted_when_it_is_given() {
    let (authority, server, writer) = (authority("ours"), memory(), memory());
    let address = serve_tls(&server.node, acceptor(&authority, &["localhost", "127.0.0.1"]));
    let roots = Roots::pem(authority.pem().as_bytes()).expect("a PEM text");
    let document = open(&writer.node);
    for host in ["localhost", "127.0.0.1"] {
        let client = Client::new(&format!("wss://{host}:{}/", address.port())).expect("a good address").roots(&roots);
        let link = connect_with(&writer.node, client);
        append(&writer.node, ["a secret"]);
        wait(link.acknowledged(&document)).expect("it is trusted");
        link.disconnect();
        wait(link.ended());
    }
    assert_eq!(server.node.document(&document).map(|(_, tail)| tail), Some(2));
    [writer, server].into_iter().for_each(|running| _ = running.stop(None));
}

#[test]
fn other_certificates_are_not_accepted() {
    let (ours, theirs, server) = (authority("ours"), authority("theirs"), memory());
    let roots = Roots::pem(ours.pem().as_bytes()).expect("a PEM text");
    let refused = |address: SocketAddr, scheme: &str| {
        let url = format!("{scheme}://localhost:{}/", address.port());
        let mut client = Client::new(&url).expect("a good address").roots(&roots);
        wait(client.connect(FRAME_MAX)).map(|_| ()).expect_err("it is not accepted")
    };
    let error = refused(serve_tls(&server.node, acceptor(&theirs, &["localhost"])), "wss");
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.reason().contains("is not accepted (UnknownIssuer)"), "{error}");
    let error = refused(serve_tls(&server.node, acceptor(&ours, &["example.com"])), "wss");
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.reason().contains("check the host's name"), "{error}");

    let plain = plain();
    let error = refused(plain.address, "wss");
    assert_eq!(error.retry(), Retry::Never);
    assert!(error.reason().contains("does not speak TLS: use ws://"), "{error}");
    plain.stop(None);
    server.stop(None);
}

#[test]
fn a_file_without_certificates_is_no_file_of_roots() {
    let none = Roots::pem(b"nothing of the kind").map(|_| ()).expect_err("there is none");
    assert!(none.to_string().contains("no certificate"), "{none}");
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Roots::pem(broken).is_err());
}
