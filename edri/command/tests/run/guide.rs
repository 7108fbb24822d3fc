//! What stands in `docs/guide.md` in other languages than Rust, run as it stands there. Only the ports are others, so that tests can
//! run beside one another, and the Python environment is one that is there already.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use edri::prelude::*;
use edri::{Node, Token};

use crate::support::{Folder, LIMIT, Running, curl, edri, http, python, repository, run, said, until};

/// The snippets that are not in Rust, in the order of the guide; each is run by a test below.
const RUN_HERE: [&str; 18] = [
    "sh program",
    "python describe.py",
    "sh orders",
    "jinja tickets/list.html",
    "jinja open.html",
    "js door.js",
    "python client.py",
    "python label.py",
    "toml edri.toml",
    "python worker.py",
    "sh greeter",
    "sh asked",
    "sh keys",
    "toml north.toml",
    "toml east.toml",
    "toml south.toml",
    "sh cluster",
    "sh looked",
];

/// What a Rust snippet may hide from its reader: what its `main` is made of, and its end.
const HIDDEN: [&str; 9] = [
    "#[tokio::main]",
    "async fn main() -> edri::Result<()> {",
    "async fn main() -> Result<(), Box<dyn std::error::Error>> {",
    "fn main() -> edri::Result<()> {",
    "fn main() -> Result<(), Box<dyn std::error::Error>> {",
    "node.shutdown().await;",
    "client.close().await;",
    "Ok(())",
    "}",
];

/// A snippet: what stands behind its opening fence, and its lines.
struct Snippet {
    info: String,
    code: String,
}

fn snippets() -> Vec<Snippet> {
    let guide = fs::read_to_string(repository().join("docs/guide.md")).expect("it is there");
    let mut snippets: Vec<Snippet> = Vec::new();
    let mut is_open = false;
    for line in guide.lines() {
        match line.strip_prefix("```") {
            Some(_) if is_open => is_open = false,
            Some(info) => {
                snippets.push(Snippet { info: info.to_owned(), code: String::new() });
                is_open = true;
            }
            None if is_open => snippets.last_mut().expect("one is open").code.extend([line, "\n"]),
            None => {}
        }
    }
    snippets
}

/// The snippet with this name.
fn snippet(info: &str) -> String {
    assert!(RUN_HERE.contains(&info), "{info} is not among those that are run");
    snippets().into_iter().find(|snippet| snippet.info == info).unwrap_or_else(|| panic!("there is no {info}")).code
}

#[test]
fn every_snippet_of_the_guide_is_compiled_or_run_and_hides_nothing_that_its_reader_needs() {
    let snippets = snippets();
    let (rust, others): (Vec<_>, Vec<_>) = snippets.iter().partition(|snippet| snippet.info.starts_with("rust"));
    assert_eq!(others.iter().map(|snippet| &*snippet.info).collect::<Vec<_>>(), RUN_HERE);
    assert!(rust.len() >= 15, "{}", rust.len());
    for snippet in rust {
        assert!(["rust", "rust,no_run"].contains(&&*snippet.info), "rustdoc does not compile {}", snippet.info);
        for hidden in snippet.code.lines().filter_map(|line| line.strip_prefix("# ")) {
            let is_end = hidden.starts_with("drop(");
            assert!(is_end || HIDDEN.contains(&hidden), "its reader does not see: {hidden}");
        }
    }
}

// ---- a folder in which the guide is followed ---------------------------------------------------------------------------

/// Where somebody follows the guide, and the nodes that run in their other terminals.
struct Reader {
    folder: Folder,
    ports: BTreeMap<u16, u16>,
    nodes: BTreeMap<String, Running>,
}

impl Reader {
    /// A folder with an environment for Python beside what the guide calls `.venv`.
    fn new() -> Self {
        let folder = Folder::new();
        let interpreter = python();
        let environment = interpreter.ancestors().nth(2).expect("it is in bin");
        symlink(environment, folder.0.join(".venv")).expect("is made");
        // All are held until the last is known, so that they differ.
        let held: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").expect("is bound")).collect();
        let gateway = TcpListener::bind("127.0.0.1:0").expect("is bound");
        let links = held.iter().map(|socket| socket.local_addr().expect("has an address").port());
        let mut ports: BTreeMap<_, _> = (7441..).zip(links).collect();
        ports.insert(8080, gateway.local_addr().expect("has an address").port());
        Self { folder, ports, nodes: BTreeMap::new() }
    }

    /// A text of the guide with other ports.
    fn with_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (from, to)| {
            text.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"))
        })
    }

    fn gateway(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.ports[&8080]).into()
    }

    /// Saves a snippet under its name.
    fn save(&self, info: &str) -> PathBuf {
        let (_, name) = info.split_once(' ').expect("it has a name");
        self.folder.write(name, &self.with_ports(&snippet(info)))
    }

    /// Types the lines of a snippet, and gives what each has answered.
    fn types(&mut self, info: &str) -> Vec<String> {
        snippet(info).lines().map(|line| self.enters(line)).collect()
    }

    fn enters(&mut self, line: &str) -> String {
        let words = shlex::split(&self.with_ports(line)).expect("its quotes are closed");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            // The environment is there, with an SDK that is installed from the same folder.
            ["python3", "-m", "venv", folder] => {
                assert!(self.folder.0.join(folder).join("bin/python").exists());
                String::new()
            }
            [".venv/bin/pip", "install", sdk] => {
                let sdk = sdk.strip_prefix("../edri/").expect("a clone stands beside the folder");
                assert!(repository().join(sdk).join("pyproject.toml").is_file());
                String::new()
            }
            ["edri", "run", file] => {
                let node = Running::start(edri(&["run", file]).current_dir(&self.folder.0));
                self.nodes.insert((*file).to_owned(), node);
                String::new()
            }
            ["edri", arguments @ ..] => {
                let mut command = edri(arguments);
                command.current_dir(&self.folder.0).env("EDRI_URL", format!("http://{}", self.gateway()));
                said(&succeeded(line, command.output().expect("is started")).stdout)
            }
            ["curl", arguments @ ..] => curl(arguments).1,
            _ => panic!("nobody types `{line}` here"),
        }
    }

    /// Types this line until its answer is as it should be.
    fn enters_until(&mut self, line: &str, is: impl Fn(&str) -> bool) {
        let began = Instant::now();
        loop {
            let answer = self.enters(line);
            if is(&answer) {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{line}: {answer}");
        }
    }

    fn ends(&mut self, file: &str) {
        let (code, log) = self.nodes.remove(file).expect("it runs").end();
        assert_eq!(code, Some(0), "{log}");
    }
}

/// A program that runs beside a node, and ends with the test.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeeded(what: &str, output: Output) -> Output {
    assert!(output.status.success(), "{what}: {}{}", said(&output.stdout), said(&output.stderr));
    output
}

// ---- what it says ------------------------------------------------------------------------------------------------------

#[test]
fn a_new_program_is_made_as_the_guide_says() {
    let folder = Folder::new();
    symlink(repository().canonicalize().expect("is there"), folder.0.join("edri")).expect("is made");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &snippet("sh program")]).current_dir(&folder.0);
    // What is needed was fetched when this test was compiled.
    succeeded("sh program", run(shell.env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR")));
    let manifest = fs::read_to_string(folder.0.join("house/Cargo.toml")).expect("is there");
    for name in ["edri = ", "tokio = ", "bytes = "] {
        assert!(manifest.contains(name), "{name} in {manifest}");
    }
}

#[test]
fn the_service_of_the_guide_answers() {
    let mut reader = Reader::new();
    reader.save("toml edri.toml");
    reader.save("python worker.py");
    let said = reader.types("sh greeter");
    assert_eq!(said[2], "edri.toml is right\n");
    assert_eq!(reader.types("sh asked"), ["\"Hello, Ada!\"", "\"Hello, Ada!\"\n"]);
    reader.ends("edri.toml");
}

#[test]
fn the_three_nodes_of_the_guide_answer_while_one_is_away() {
    let mut reader = Reader::new();
    for info in ["python worker.py", "toml north.toml", "toml east.toml", "toml south.toml"] {
        reader.save(info);
    }
    reader.types("sh keys");
    for file in ["north.toml", "east.toml", "south.toml"] {
        assert_eq!(reader.enters(&format!("edri check {file}")), format!("{file} is right\n"));
    }
    reader.types("sh cluster");
    let gateway = reader.gateway();
    until("the nodes have met", || {
        let all = r#"{"name": "Ada"}"#;
        http(gateway, "POST", "/events/greeting.ask", None, all).0 == 200
    });
    reader.enters_until("edri nodes --all", |table| table.matches(" reachable").count() == 6);
    let looked = reader.types("sh looked");
    assert_eq!(looked[..2], ["\"Hello, Ada!\"", "\"Hello, Ada!\"\n"]);
    for (line, greetings) in looked[3].lines().filter(|line| line.contains("greetings")).zip(["east", "south"]) {
        assert!(line.starts_with(greetings), "{}", looked[3]);
    }
    reader.ends("east.toml");
    assert_eq!(reader.enters("curl http://127.0.0.1:8080/greetings/Eve"), "\"Hello, Eve!\"");
    reader.enters("edri run east.toml");
    reader.enters_until("edri nodes --all", |table| table.matches(" reachable").count() == 6);
    reader.ends("south.toml");
    assert_eq!(reader.enters("curl http://127.0.0.1:8080/greetings/Ina"), "\"Hello, Ina!\"");
}

#[test]
fn the_python_workers_of_the_guide_work() {
    let mut reader = Reader::new();
    reader.save("python describe.py");
    let label = reader.save("python label.py");
    let file = "name = \"studio\"\n[api]\nbind = \"127.0.0.1:8080\"\nopen = true\nexpose = [\"image.*\"]\n\
                [managers.describer]\ncommand = \"describe.py\"\ninterpreter = \".venv/bin/python\"\n\
                [remote.labels]\nserves = [\"image.*\"]\n";
    reader.folder.write("edri.toml", &reader.with_ports(file));
    // The node waits for it, and it for the node.
    let labels = Beside(Command::new(reader.folder.0.join(".venv/bin/python")).arg(label).spawn().expect("is started"));
    reader.enters("edri run edri.toml");
    let described = reader.enters(r#"edri request image.describe '{"path": "a.png"}'"#);
    assert_eq!(described, "\"an image at a.png\"\n");
    assert_eq!(reader.enters("curl http://127.0.0.1:8080/labels/cat"), "\"a picture of cat\"");
    drop(labels);
    reader.ends("edri.toml");
}

// ---- the programs in Rust that these belong to -------------------------------------------------------------------------

/// As in the guide.
#[event(request, name = "order.place", response = Http<Order>, http = "POST /orders/{customer}")]
struct PlaceOrder {
    customer: u32,
    items: Vec<String>,
    #[http(header = "x-tenant")]
    tenant: Option<String>,
}

#[data]
struct Order {
    id: u32,
}

#[event(notification, name = "order.placed", key = customer, expose)]
struct OrderPlaced {
    customer: u32,
}

#[event(request, name = "door.bell", response = String, expose)]
struct Ring {
    times: u32,
}

#[event(notification, name = "door.moved", key = door, expose)]
struct Moved {
    door: String,
    open: bool,
}

struct Porter;

impl Worker for Porter {}

impl Handle<PlaceOrder> for Porter {
    async fn handle(&mut self, order: &PlaceOrder, cx: &mut Context) -> Result<Http<Order>, Failure> {
        assert_eq!(order.tenant, None);
        if order.items.is_empty() {
            return Err(Failure::new("invalid", "an order has at least one item"));
        }
        cx.publish(OrderPlaced { customer: order.customer }).await?;
        Ok(Http::created("/orders/7", Order { id: 7 }))
    }
}

impl Handle<Ring> for Porter {
    async fn handle(&mut self, ring: &Ring, _: &mut Context) -> Result<String, Failure> {
        Ok("ding ".repeat(ring.times as usize))
    }
}

/// A node with the events of the guide; a token lets do everything, and everybody may do what the guide does without one.
async fn house(token: &Token) -> Node {
    let anybody = Permissions::new().publish(">").request(">").subscribe(">");
    let access = Access::new().token(&token.hash(), "anna", Permissions::all()).anonymous(anybody);
    let api = Api::bind("127.0.0.1:0").event::<OrderPlaced>().event::<Moved>().access(access);
    let porter = Manager::new("porter").worker(|| Porter).handles::<PlaceOrder>().handles::<Ring>();
    let app = App::new("house").manager(porter).history("order.placed", History::new()).api(api);
    app.start().await.expect("starts")
}

fn reader_of(node: &Node) -> Reader {
    let mut reader = Reader::new();
    reader.ports.insert(8080, node.api_address().expect("it has a gateway").port());
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_answers_curl_as_the_guide_says() {
    let node = house(&Token::random().expect("random")).await;
    let reader = reader_of(&node);
    let lines = reader.with_ports(&snippet("sh orders"));
    let mut answers = lines.lines().map(|line| {
        let words = shlex::split(line).expect("its quotes are closed");
        assert_eq!(words[0], "curl");
        curl(&words[1..].iter().map(String::as_str).collect::<Vec<_>>())
    });
    let (head, body) = answers.next().expect("an order");
    assert!(head.starts_with("HTTP/1.1 201") && head.contains("location: /orders/7"), "{head}");
    assert_eq!(body, r#"{"id":7}"#);
    let (head, body) = answers.next().expect("an order of nothing");
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("at least one item"), "{head}{body}");
    let (head, body) = answers.next().expect("the orders placed");
    assert!(head.contains("text/event-stream") && body.contains(r#"{"customer":12}"#), "{head}{body}");
    node.shutdown().await;
}

#[event(request, name = "ticket.list", response = Tickets, http = "GET /tickets", page = "tickets/list.html")]
struct ListTickets {
    #[serde(default)]
    open: Option<bool>,
}

#[data]
struct Tickets {
    tickets: Vec<String>,
}

#[event(request, name = "ticket.open", response = Tickets, http = "POST /tickets", form = "open.html", then = "/tickets")]
struct OpenTicket {
    #[validate(length(min = 3))]
    title: String,
    urgent: bool,
}

struct Desk;

impl Worker for Desk {}

impl Handle<ListTickets> for Desk {
    async fn handle(&mut self, _: &ListTickets, _: &mut Context) -> Result<Tickets, Failure> {
        Ok(Tickets { tickets: vec!["the printer <burns>".to_owned()] })
    }
}

impl Handle<OpenTicket> for Desk {
    async fn handle(&mut self, ticket: &OpenTicket, _: &mut Context) -> Result<Tickets, Failure> {
        assert!(ticket.urgent);
        Ok(Tickets { tickets: vec![ticket.title.clone()] })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_templates_of_the_guide_show_what_they_are_to_show() {
    let folder = Folder::new();
    for file in ["pages/tickets", "static"] {
        fs::create_dir_all(folder.0.join(file)).expect("is made");
    }
    for info in ["jinja tickets/list.html", "jinja open.html"] {
        let (_, name) = info.split_once(' ').expect("it has a name");
        fs::write(folder.0.join("pages").join(name), snippet(info)).expect("is written");
    }
    fs::write(folder.0.join("pages/base.html"), "{% block main %}{% endblock %}").expect("is written");
    fs::write(folder.0.join("static/style.css"), "").expect("is written");
    let pages = Pages::folder(folder.0.join("pages")).assets(folder.0.join("static"));
    let desk = Manager::new("desk").worker(|| Desk).handles::<ListTickets>().handles::<OpenTicket>();
    let node = App::new("desk").manager(desk).api(Api::bind("127.0.0.1:0").pages(pages)).start().await.expect("starts");
    let url = format!("http://{}/tickets", node.api_address().expect("a gateway"));
    let (head, body) = curl(&["-H", "accept: text/html", &url]);
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/html"), "{head}");
    assert!(body.contains("<li>the printer &lt;burns&gt;</li>") && body.contains("?open=true"), "{body}");
    let (head, body) = curl(&["-H", "accept: text/html", "-d", "title=ab&urgent=on", &url]);
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert!(
        body.contains(r#"value="ab""#) && body.contains("at least 3") && body.contains(r#"name="_once""#),
        "{body}"
    );
    let (head, _) = curl(&["-H", "accept: text/html", "-d", "title=abc&urgent=on", &url]);
    assert!(head.starts_with("HTTP/1.1 303") && head.contains("location: /tickets"), "{head}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_of_the_guide_rings_and_watches() {
    let token = Token::random().expect("random");
    let node = house(&token).await;
    let reader = reader_of(&node);
    let client = reader.save("python client.py");
    let program = fs::read_to_string(&client).expect("is there").replace("edri_...", token.secret());
    fs::write(&client, program).expect("is written");
    let interpreter = reader.folder.0.join(".venv/bin/python");
    let python = |code: &str| {
        let mut command = Command::new(&interpreter);
        command.args(["-u", "-c", code]).current_dir(&reader.folder.0).stderr(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    let rung = tokio::task::block_in_place(|| run(&mut python("import client; client.ring()")));
    assert_eq!(said(&succeeded("ring()", rung).stdout), "ding \n");
    let watching = python("import asyncio, client; asyncio.run(client.watch())").spawn();
    let mut watching = Beside(watching.expect("is started"));
    let lines = BufReader::new(watching.0.stdout.take().expect("is piped")).lines();
    first_of(&node, lines, &["ding ding ", "door.moved {'door': 'front', 'open': True} 0"]).await;
    drop(watching);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_of_the_guide_is_answered_in_javascript() {
    let made =
        Command::new("python3").arg(repository().join("sdk/typescript/environment.py")).arg(typescript()).output();
    let made = made.expect("these tests need Python 3.9 or later: install python3");
    if made.status.code() == Some(77) && std::env::var_os("CI").is_none() {
        // Not by `print`, whose output of a test that passes nobody sees.
        drop(writeln!(std::io::stderr(), "not tested: {}", said(&made.stderr)));
        return;
    }
    succeeded("environment.py", made);
    let node = house(&Token::random().expect("random")).await;
    let reader = reader_of(&node);
    let script = reader.save("js door.js");
    // A browser has it without being asked, and Node from 22 on.
    let mut node_js = Command::new("node");
    let socket = node_js.arg("--experimental-websocket").arg(script).stdout(Stdio::piped()).spawn();
    let mut socket = Beside(socket.expect("is started"));
    let lines = BufReader::new(socket.0.stdout.take().expect("is piped")).lines();
    first_of(&node, lines, &["welcome", "ding ding ", "door.moved"]).await;
    drop(socket);
    node.shutdown().await;
}

/// Where the TypeScript SDK is built, beside this build.
fn typescript() -> PathBuf {
    let program = std::env::current_exe().expect("a test has a path");
    program.ancestors().nth(3).expect("it is in target/debug/deps").join("typescript")
}

/// Moves a door until lines have come that contain these texts, one after another.
async fn first_of(node: &Node, lines: impl Iterator<Item = std::io::Result<String>> + Send + 'static, texts: &[&str]) {
    let reading = tokio::task::spawn_blocking({
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        move || {
            let mut came = Vec::new();
            let mut waited = texts.iter().peekable();
            for line in lines {
                let line = line.expect("is read");
                waited.next_if(|text| line.contains(&***text));
                came.push(line);
                if waited.peek().is_none() {
                    return;
                }
            }
            panic!("{:?} has not come: {came:?}", waited.next());
        }
    });
    let began = Instant::now();
    while !reading.is_finished() {
        node.bus().publish(Moved { door: "front".to_owned(), open: true }).await.expect("is published");
        assert!(began.elapsed() < LIMIT, "{texts:?} do not come");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    reading.await.expect("all came");
}
