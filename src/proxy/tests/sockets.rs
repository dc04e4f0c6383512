//! Sockets: one address is one process's, and everyone gets all of what was handed over.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use tokio::net::TcpStream;

use super::support::{Edge, get, soon};
use crate::base::bind;
use crate::proxy::listener::{BindError, Bound, Inherited, Port};
use crate::proxy::settings::Settings;

fn on(https: &str, workers: usize) -> Settings {
    Settings {
        https: vec![https.parse().unwrap()],
        http: Vec::new(),
        workers: NonZeroUsize::new(workers).unwrap(),
        ..Settings::default()
    }
}

#[test]
fn a_port_of_another_vestibule_is_in_use_in_spite_of_reuseport() {
    let first = Bound::bind(&on("127.0.0.1:0", 3), Inherited::default()).unwrap();
    let address = first.addresses(Port::Https).next().unwrap();
    assert_ne!(address.port(), 0);
    let error = Bound::bind(&on(&address.to_string(), 3), Inherited::default()).unwrap_err();
    assert!(
        matches!(error, BindError::Address(bind::BindError::InUse { address: at }) if at == address)
    );
    let text = error.to_string();
    let remedy = format!("sport = :{}", address.port());
    assert!(
        text.contains(&address.to_string()) && text.contains(&remedy),
        "{text}"
    );
    drop(first);
    Bound::bind(&on(&address.to_string(), 1), Inherited::default()).unwrap();
}

#[test]
fn an_address_of_another_machine_is_named() {
    let error = Bound::bind(&on("192.0.2.1:0", 1), Inherited::default()).unwrap_err();
    assert!(
        error.to_string().contains("no address 192.0.2.1"),
        "{error}"
    );
}

#[test]
fn each_worker_has_a_socket_of_its_own_on_the_same_port() {
    let bound = Bound::bind(&on("127.0.0.1:0", 3), Inherited::default()).unwrap();
    let address = bound.addresses(Port::Https).next().unwrap();
    let by_worker = bound.by_worker(3);
    assert_eq!(by_worker.len(), 3);
    for sockets in &by_worker {
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets[0].1.local_addr().unwrap(), address);
    }
}

#[test]
fn inherited_sockets_are_all_taken_whether_more_or_fewer_than_workers() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let settings = on(&address.to_string(), 4);
    let bound = Bound::bind(&settings, Inherited::new(vec![first])).unwrap();
    let shared: Vec<usize> = bound.by_worker(4).iter().map(Vec::len).collect();
    assert_eq!(shared, [1, 1, 1, 1]);

    let many = Bound::bind(&on("127.0.0.1:0", 3), Inherited::default()).unwrap();
    let address = many.addresses(Port::Https).next().unwrap();
    let handed = many
        .by_worker(3)
        .into_iter()
        .flatten()
        .map(|(_, socket)| socket)
        .collect();
    let settings = on(&address.to_string(), 2);
    let bound = Bound::bind(&settings, Inherited::new(handed)).unwrap();
    let spread: Vec<usize> = bound.by_worker(2).iter().map(Vec::len).collect();
    assert_eq!(spread, [2, 1]);
}

#[test]
fn an_inherited_socket_that_nothing_names_is_an_error() {
    let stray = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stray.local_addr().unwrap();
    let error = Bound::bind(&on("127.0.0.1:0", 1), Inherited::new(vec![stray])).unwrap_err();
    assert!(matches!(error, BindError::Unexpected { address: at } if at == address));
}

#[tokio::test]
async fn the_unspecified_ipv6_address_takes_ipv4_too_and_visitors_show_as_ipv4() {
    let mut edge = Edge::start(|settings| settings.https = vec!["[::]:0".parse().unwrap()]);
    edge.serve("acme", &["app.example"]);
    let address = SocketAddr::from(([127, 0, 0, 1], edge.https.port()));
    let tcp = soon(TcpStream::connect(address)).await.unwrap();
    let config = edge.client(&[]).into();
    let mut stream = edge.visit_over(tcp, config, "app.example").await.unwrap();
    let answer = get(&mut stream, "app.example", "/").await;
    assert!(answer.contains("acme app.example 127.0.0.1:"), "{answer}");
}

#[tokio::test]
async fn accepted_connections_inherit_no_delay() {
    let bound = Bound::bind(&on("127.0.0.1:0", 1), Inherited::default()).unwrap();
    let address = bound.addresses(Port::Https).next().unwrap();
    let (_, socket) = bound.by_worker(1).remove(0).remove(0);
    let listener = tokio::net::TcpListener::from_std(socket).unwrap();
    let _visitor = soon(TcpStream::connect(address)).await.unwrap();
    let (tcp, _) = soon(listener.accept()).await.unwrap();
    assert!(tcp.nodelay().unwrap());
    assert!(socket2::SockRef::from(&tcp).keepalive().unwrap());
}
