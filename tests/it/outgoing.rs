//! Requests to URLs of users: none goes to a host that the operator does not allow, as a listener
//! there sees. The rows are those of SSRF attacks as published.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use rehead::{
    config::OutgoingArgs,
    outgoing::{Lookup, Outgoing, Refused, Unsent, Use},
};
use reqwest::Method;
use serde_json::json;

use crate::support::{
    receiver::{Receiver, Silent, status},
    service::Service,
};

/// URLs that lead to a port of this machine, however they are written.
fn loopback_urls(port: u16) -> Vec<String> {
    let hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "127.255.255.254",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
    ];
    let hosts = hosts.map(|host| format!("http://{host}:{port}/"));
    let forms = [
        format!("https://127.0.0.1:{port}/"),
        format!("http:127.0.0.1:{port}/"),
        format!("http:\\\\127.0.0.1:{port}\\"),
        format!("\thttp://127.0.0.1:{port}/\n"),
        format!("http://user@127.0.0.1:{port}/"),
        format!("http://public.example@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#@public.example/"),
        format!("http://:secret@127.0.0.1:{port}/"),
    ];
    hosts.into_iter().chain(forms).collect()
}

/// URLs of other kinds that must not be used.
const OTHERS: [&str; 22] = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://198.51.100.1/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:70/_x",
    "ftp://127.0.0.1/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "data:text/plain,x",
];

#[tokio::test(flavor = "multi_thread")]
async fn urls_of_private_hosts_are_refused_and_no_packet_is_sent() {
    let silent = Silent::bind("127.0.0.1").unwrap();
    let silent_v6 = Silent::bind("::1");
    let ports = [Some(silent.port()), silent_v6.as_ref().map(Silent::port)];
    let service = Service::start_with(&["--download-hosts", "*:*"]).await;
    let mut urls: Vec<String> = ports
        .into_iter()
        .flatten()
        .flat_map(loopback_urls)
        .collect();
    urls.extend(OTHERS.map(str::to_owned));
    let bodies = |url: &str| {
        let weights = json!({"id": "x", "architecture": "resnet18", "weights": {"url": url}});
        [
            ("/v1/webhooks", json!({ "url": url })),
            ("/v1/files", json!({"url": url, "purpose": "fine-tune"})),
            ("/v1/base_models", weights),
        ]
    };
    for (url, (path, body)) in urls
        .iter()
        .flat_map(|url| bodies(url).map(|body| (url, body)))
    {
        let answer = service.post(path, &body).await;
        assert_eq!(answer.status.as_u16(), 422, "{url}: {}", answer.text());
        let code = answer.json()["error"]["code"].as_str().unwrap().to_owned();
        assert!(
            ["url_not_allowed", "invalid_url", "invalid_value"].contains(&code.as_str()),
            "{url}: {code}"
        );
        assert!(!silent.was_contacted(), "{url}");
        assert!(
            !silent_v6.as_ref().is_some_and(Silent::was_contacted),
            "{url}"
        );
    }
}

/// Without this the test above would pass for a service that refuses everything.
#[tokio::test(flavor = "multi_thread")]
async fn private_hosts_are_reached_where_the_operator_lists_them() {
    let receiver = Receiver::start(|_, _| status(200)).await;
    let listed = format!("localhost:{}", receiver.port);
    let service =
        Service::start_with(&["--private-hosts", &listed, "--webhook-poll-ms", "50"]).await;
    let url = format!("http://localhost:{}/hook", receiver.port);
    let hook = service
        .post("/v1/webhooks", &json!({ "url": url }))
        .await
        .ok();
    let path = format!("/v1/webhooks/{}/test", hook["id"].as_str().unwrap());
    service.post(&path, &json!({})).await.ok();
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].path, "/hook");
    for url in [
        format!("http://localhost:{}/", receiver.port - 1),
        format!("http://127.0.0.1:{}/", receiver.port),
        format!("http://localhost.evil.example:{}/", receiver.port),
    ] {
        let answer = service.post("/v1/webhooks", &json!({ "url": url })).await;
        answer.error(422, "url_not_allowed");
    }
}

/// Answers each lookup of a name with the next of its answers, and the last one for ever.
#[derive(Clone)]
struct Flipping {
    answers: Vec<Vec<IpAddr>>,
    lookups: Arc<Mutex<Vec<String>>>,
}

impl Flipping {
    fn new(answers: &[&str]) -> Self {
        let addresses = |text: &&str| -> Vec<IpAddr> {
            let addresses = text.split_whitespace();
            addresses.map(|one| one.parse().unwrap()).collect()
        };
        Self {
            answers: answers.iter().map(addresses).collect(),
            lookups: Arc::default(),
        }
    }

    fn lookups(&self) -> usize {
        self.lookups.lock().unwrap().len()
    }
}

impl Lookup for Flipping {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut lookups = self.lookups.lock().unwrap();
        let answer = self.answers[lookups.len().min(self.answers.len() - 1)].clone();
        lookups.push(name);
        Box::pin(async move { Ok(answer) })
    }
}

fn outgoing(private: &str, lookup: &Flipping) -> Outgoing {
    let args = OutgoingArgs {
        download_hosts: "*:*".parse().unwrap(),
        webhook_hosts: "*:*".parse().unwrap(),
        private_hosts: private.parse().unwrap(),
        ..OutgoingArgs::default()
    };
    Outgoing::with_lookup(&args, lookup.clone())
}

/// The name resolves to a public address when it is checked, and to this machine when it is used.
#[tokio::test]
async fn a_name_that_resolves_differently_later_is_refused_again() {
    let silent = Silent::bind("127.0.0.1").unwrap();
    let lookup = Flipping::new(&["1.1.1.1", "127.0.0.1"]);
    let outgoing = outgoing("none", &lookup);
    let url = format!("http://flip.example:{}/", silent.port());
    let target = outgoing.target(&url, Use::Webhook).unwrap();
    outgoing.check(&target).await.unwrap();
    let sent = outgoing
        .send(Method::POST, &target, |request| request)
        .await;
    let refused = Refused::NotPublic("flip.example".to_owned());
    assert_eq!(sent.unwrap_err(), Unsent::Refused(refused));
    assert!(!silent.was_contacted());
}

/// A connection is opened to the addresses that were checked: the name is looked up once.
#[tokio::test]
async fn a_connection_goes_to_the_address_that_was_checked() {
    let receiver = Receiver::start(|_, _| status(200)).await;
    let silent = Silent::bind("127.0.0.2").unwrap();
    let lookup = Flipping::new(&["127.0.0.1", "127.0.0.2"]);
    let outgoing = outgoing("store.example:*", &lookup);
    let url = format!("http://store.example:{}/", receiver.port);
    let target = outgoing.target(&url, Use::Webhook).unwrap();
    let sent = outgoing
        .send(Method::POST, &target, |request| request)
        .await;
    assert!(sent.unwrap().status().is_success());
    assert_eq!(lookup.lookups(), 1);
    let host = receiver.received()[0].header("host").to_owned();
    assert_eq!(host, format!("store.example:{}", receiver.port));
    assert!(!silent.was_contacted());
}

/// One bad address among several is enough, wherever it stands; and a listed name never leads to an
/// address that is forbidden altogether.
#[tokio::test]
async fn all_addresses_of_a_name_are_checked() {
    for (private, addresses) in [
        ("none", "1.1.1.1 127.0.0.1"),
        ("none", "127.0.0.1 1.1.1.1"),
        ("none", "1.1.1.1 ::ffff:10.0.0.1"),
        ("none", ""),
        ("*:*", "127.0.0.1 169.254.169.254"),
        ("*:*", "0.0.0.0"),
    ] {
        let lookup = Flipping::new(&[addresses]);
        let outgoing = outgoing(private, &lookup);
        let target = outgoing
            .target("http://many.example:9/", Use::Webhook)
            .unwrap();
        let refused = Refused::NotPublic("many.example".to_owned());
        assert_eq!(outgoing.check(&target).await, Err(refused.clone()));
        let sent = outgoing.send(Method::GET, &target, |request| request).await;
        assert_eq!(sent.unwrap_err(), Unsent::Refused(refused), "{addresses}");
    }
}
