//! Our challenge asked for, with real servers on loopback addresses.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::base::task::Tasks;
use crate::dns::fixture::{NameServer, Script};

const TOKEN: &str = "DGyRejmCefe7v4NfDGDKfA";
const ANSWER: &str = "DGyRejmCefe7v4NfDGDKfA.ours";

/// An HTTP server that answers every request with what `answer` makes of its first line and host.
async fn serve(address: SocketAddr, tasks: &Tasks, answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn_until_cancelled("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            let asked = String::from_utf8_lossy(&buffer[..read]).into_owned();
            stream.write_all(answer(&asked).as_bytes()).await.ok();
        }
    });
    address
}

fn page(status: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{fields}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn ours(asked: &str) -> String {
    assert!(asked.contains("host: shop.acme.test\r\n"), "{asked}");
    match asked.starts_with(&format!("GET /.well-known/acme-challenge/{TOKEN} ")) {
        true => page("200 OK", "", &format!("{ANSWER}\n")),
        false => page("404 Not Found", "", ""),
    }
}

/// Asks a server at 127.0.0.1 that answers so.
async fn asked(answer: fn(&str) -> String) -> Fetch {
    let tasks = Tasks::new();
    let address = serve("127.0.0.1:0".parse().unwrap(), &tasks, answer).await;
    let names = NameServer::start(&tasks).await;
    names.says(
        "elsewhere.acme.test",
        Script::Leads(Vec::new(), vec![address.ip()]),
    );
    let fetch = fetch(&names, address, Dial::Any).await;
    tasks.cancel();
    fetch
}

async fn fetch(names: &NameServer, address: SocketAddr, dial: Dial) -> Fetch {
    let examiner = Examiner::new(&names.settings).unwrap();
    let name = DnsName::parse("shop.acme.test").unwrap();
    let edge = Edge {
        http_port: address.port(),
        https_port: 1,
        ..Edge::default()
    };
    let probe = Probe {
        examiner: &examiner,
        edge: &edge,
        dial,
        name: &name,
        token: TOKEN,
        expected: ANSWER,
    };
    probe.fetch(address.ip()).await
}

#[tokio::test]
async fn our_own_answer_is_known_whatever_white_space_ends_it() {
    assert_eq!(asked(ours).await.found, Found::Ours);
}

#[tokio::test]
async fn somebody_else_is_told_with_status_and_server_and_never_with_content() {
    let fetch = asked(|_| {
        page(
            "404 Not Found",
            "server: nginx/1.27\r\ncf-ray: 8f0-FRA\r\n",
            "secret",
        )
    })
    .await;
    assert_eq!(fetch.cdn, Some(Cdn::Cloudflare));
    let told = fetch.to_string();
    assert_eq!(
        told,
        "127.0.0.1: somebody else answered with status 404 (server: nginx/1.27), behind Cloudflare"
    );
    // A page for everything is not ours either.
    let fetch = asked(|_| page("200 OK", "", "welcome")).await;
    assert!(
        matches!(fetch.found, Found::Other { status: 200, .. }),
        "{fetch}"
    );
}

#[tokio::test]
async fn redirects_are_followed_as_authorities_follow_them() {
    let fetch = asked(|asked| match asked.starts_with("GET /there ") {
        true => page("200 OK", "", ANSWER),
        false => page("301 Moved", "location: /there\r\n", ""),
    })
    .await;
    assert_eq!(fetch.found, Found::Ours);
    let fetch = asked(
        |asked| match asked.contains("host: elsewhere.acme.test\r\n") {
            true => page("410 Gone", "", ""),
            false => page(
                "302 Found",
                "location: http://elsewhere.acme.test/x\r\n",
                "",
            ),
        },
    )
    .await;
    assert_eq!(
        fetch.found,
        Found::Other {
            status: 410,
            server: None,
            at: Some("http://elsewhere.acme.test".to_owned())
        }
    );
}

#[tokio::test]
async fn circles_and_ports_that_no_authority_asks_are_loops() {
    let circle = asked(|asked| match asked.starts_with("GET /a ") {
        true => page("302 Found", "location: /b\r\n", ""),
        false => page("302 Found", "location: /a\r\n", ""),
    })
    .await;
    assert_eq!(
        circle.found,
        Found::Loop("a redirect in a circle".to_owned())
    );
    for location in [
        "http://shop.acme.test:22/",
        "ftp://shop.acme.test/",
        "http://10.0.0.1/",
    ] {
        let fetch = match location {
            "http://shop.acme.test:22/" => {
                asked(|_| page("302 Found", "location: http://shop.acme.test:22/\r\n", "")).await
            }
            "ftp://shop.acme.test/" => {
                asked(|_| page("302 Found", "location: ftp://shop.acme.test/\r\n", "")).await
            }
            _ => asked(|_| page("302 Found", "location: http://10.0.0.1/\r\n", "")).await,
        };
        assert!(matches!(fetch.found, Found::Loop(_)), "{location}: {fetch}");
    }
}

#[tokio::test]
async fn a_redirect_that_cannot_be_followed_to_its_end_is_unreachable() {
    // Port 1 stands for HTTPS here, where nobody listens.
    let fetch = asked(|_| page("308 Permanent", "location: https://shop.acme.test/\r\n", "")).await;
    let told = fetch.to_string();
    assert!(
        told.contains("after a redirect to https://shop.acme.test: no connection"),
        "{told}"
    );
}

#[tokio::test]
async fn a_strangers_record_never_leads_into_our_own_network() {
    let tasks = Tasks::new();
    let names = NameServer::start(&tasks).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fetch = fetch(&names, address, Dial::PublicAndOwn).await;
    assert_eq!(fetch.found, Found::NotPublic);
    // Nobody has knocked.
    let knocked = futures_util::FutureExt::now_or_never(listener.accept());
    assert!(knocked.is_none());
    tasks.cancel();
}
