//! Who gets past the handshake, and who does not.

use std::sync::Arc;
use std::time::SystemTime;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::keys::tests::Folder;

const HOUR: Duration = Duration::from_secs(3600);

/// Neither of the two gets a connection, whoever dials.
async fn refused(one: Identity, other: Identity) {
    let (one, other) = (bind(one), bind(other));
    for (dialler, acceptor) in [(&one, &other), (&other, &one)] {
        let (dialled, accepted) =
            within(async { tokio::join!(dialler.dial(acceptor.local_addr()), acceptor.accept()) }).await;
        assert!(matches!(&dialled, Err(DialError::Closed { closed: Closed::Distrust(_), .. })), "{dialled:?}");
        let accepted = accepted.expect("the endpoint is open");
        assert!(matches!(&accepted, Err(AcceptError { closed: Closed::Distrust(_), .. })), "{accepted:?}");
    }
}

fn from_to(authority: &Authority, from: SystemTime, until: SystemTime) -> Identity {
    authority.issue_for(&["edri:node:b".to_owned()], from, until, &node("b")).unwrap()
}

#[tokio::test]
async fn nodes_of_another_authority_are_refused() {
    let authorities = [(); 2].map(|()| Authority::generate().unwrap());
    refused(issue(&authorities[0], "a"), issue(&authorities[1], "b")).await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::generate().unwrap();
    let now = SystemTime::now();
    refused(issue(&authority, "a"), from_to(&authority, now - 2 * HOUR, now - HOUR)).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused() {
    let authority = Authority::generate().unwrap();
    let now = SystemTime::now();
    refused(issue(&authority, "a"), from_to(&authority, now + HOUR / 60, now + HOUR)).await;
}

#[tokio::test]
async fn clocks_may_differ_by_nearly_an_hour() {
    // What a clock that is ahead issues as valid for an hour already.
    let authority = Authority::generate().unwrap();
    let ahead = SystemTime::now() + HOUR - HOUR / 20;
    let b = from_to(&authority, ahead - crate::keys::CLOCKS_DIFFER_MAX, ahead + HOUR);
    Nodes { a: bind(issue(&authority, "a")), b: bind(b) }.connect().await;
}

#[tokio::test]
async fn a_certificate_that_names_no_node_or_two_is_refused() {
    let authority = Authority::generate().unwrap();
    let now = SystemTime::now();
    for uris in [&[][..], &["https://b.example/"], &["edri:node:b", "edri:node:c"], &["edri:node:"]] {
        let uris: Vec<_> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        refused(issue(&authority, "a"), authority.issue_for(&uris, now - HOUR, now + HOUR, &node("b")).unwrap()).await;
    }
}

/// Dials with what TLS `config` makes, and trusts whoever answers.
async fn dial_as_stranger(
    config: impl FnOnce(rustls::client::ClientConfig) -> rustls::client::ClientConfig,
) -> (Result<quinn::Connection, quinn::ConnectionError>, Result<Connection, AcceptError>) {
    let authority = Authority::generate().unwrap();
    let (a, b) = (issue(&authority, "a"), bind(issue(&authority, "b")));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls =
        rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let verifier = super::super::tls::tests::verifier(&a);
    let mut tls = tls.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = QuicClientConfig::try_from(config(tls)).unwrap();
    let endpoint = quinn::Endpoint::client(ANYWHERE.parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(tls)), b.local_addr(), "b").unwrap();
    within(async {
        let dialled = async {
            let connection = connecting.await?;
            // The stranger believes in the connection until the node's refusal arrives.
            connection.accept_uni().await.map(|_| connection)
        };
        let (dialled, accepted) = tokio::join!(dialled, b.accept());
        (dialled, accepted.expect("the endpoint is open"))
    })
    .await
}

#[tokio::test]
async fn a_stranger_without_a_certificate_is_refused() {
    let (dialled, accepted) = dial_as_stranger(|tls| tls).await;
    assert!(dialled.is_err(), "{dialled:?}");
    assert!(matches!(&accepted, Err(AcceptError { closed: Closed::Distrust(_), .. })), "{accepted:?}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    for protocols in [vec![], vec![b"h3".to_vec()], vec![b"edri/2".to_vec()]] {
        let (dialled, accepted) = dial_as_stranger(|mut tls| {
            tls.alpn_protocols = protocols;
            tls
        })
        .await;
        assert!(dialled.is_err() && accepted.is_err(), "{dialled:?} {accepted:?}");
    }
}

fn certificate(connection: &Connection) -> CertificateDer<'static> {
    let chain = connection.quinn().peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    chain[0].clone()
}

#[tokio::test]
async fn new_handshakes_show_the_new_certificate_and_old_connections_stay() {
    let authority = Authority::generate().unwrap();
    let folder = Folder::new();
    issue(&authority, "b").save(folder.path()).unwrap();
    let b = Reloading::open(folder.path()).unwrap();
    let nodes = Nodes { a: bind(issue(&authority, "a")), b: bind(b.clone()) };
    let (before, _far) = nodes.connect().await;
    issue(&authority, "b").save(folder.path()).unwrap();
    assert!(b.reload().unwrap());
    let (after, _far) = nodes.connect().await;
    assert_ne!(certificate(&before), certificate(&after));
    assert_eq!(before.closed_because(), None);
    assert!(nodes.b.identity().current().expires_in() > HOUR);
}

#[tokio::test]
async fn files_that_change_are_taken_up_without_being_asked_for() {
    let authority = Authority::generate().unwrap();
    let folder = Folder::new();
    issue(&authority, "b").save(folder.path()).unwrap();
    let reloading = Reloading::open(folder.path()).unwrap();
    let old = reloading.current();
    let options = Options { reload_every: Duration::from_millis(10), ..Options::default() };
    let _b = Endpoint::bind(ANYWHERE.parse().unwrap(), reloading.clone(), options).unwrap();
    std::fs::write(folder.path().join("node.pem"), "broken").unwrap();
    issue(&authority, "b").save(folder.path()).unwrap();
    within(async {
        while Arc::ptr_eq(&old, &reloading.current()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_replaced_while_nodes_run() {
    let folders = [(); 3].map(|()| Folder::new());
    let [old, new] = [0, 1].map(|index: usize| Authority::create(folders[index].path()).unwrap());
    let home = folders[2].path();
    let authorities = |from: &[usize]| {
        let texts = from.iter().map(|index| folders[*index].path().join("authority.pem"));
        let text: String = texts.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        std::fs::write(home.join("authority.pem"), text).unwrap();
    };
    issue(&old, "b").save(home).unwrap();
    let b = Reloading::open(home).unwrap();
    let acceptor = bind(b.clone());
    let (of_old, of_new) = (bind(issue(&old, "a")), bind(issue(&new, "a")));
    let dial = async |dialler: &Endpoint| {
        let (dialled, accepted) =
            within(async { tokio::join!(dialler.dial(acceptor.local_addr()), acceptor.accept()) }).await;
        assert_eq!(dialled.is_ok(), accepted.unwrap().is_ok());
        dialled.is_ok()
    };
    assert_eq!((dial(&of_old).await, dial(&of_new).await), (true, false));

    authorities(&[0, 1]);
    assert!(b.reload().unwrap());
    let nodes = bind(issue(&old, "a"));
    assert!(dial(&nodes).await);
    // A node of the new authority is trusted; that it trusts this one is for its own files to say.
    let (_, accepted) = within(async { tokio::join!(of_new.dial(acceptor.local_addr()), acceptor.accept()) }).await;
    let refusal = accepted.unwrap().unwrap_err().to_string();
    assert!(refusal.contains("the neighbour says"), "{refusal}");

    issue(&new, "b").save(home).unwrap();
    authorities(&[0, 1]);
    assert!(b.reload().unwrap());
    assert_eq!((dial(&of_old).await, dial(&of_new).await), (false, true));
}
