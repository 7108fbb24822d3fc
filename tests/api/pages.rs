//! Pages: what a browser gets.

use std::path::PathBuf;

use edri::Node;
use edri::Token;
use edri::prelude::*;
use serde_json::json;

use super::client::ask;

/// What a browser says that it takes.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");

#[event(request, name = "shelf.show", response = Book, http = "GET /books/{title}", page = "books/show.html")]
struct ShowBook {
    title: String,
}

#[data]
struct Book {
    title: String,
    pages: u32,
}

/// A book was read.
#[event(notification, name = "shelf.read", http = "POST /read", page = "thanks.html")]
struct Read {
    title: String,
}

#[event(request, name = "shelf.lend", response = Http<Book>, http = "POST /lend", page = "books/lent.html")]
struct Lend {}

struct Shelf;

impl Worker for Shelf {}

impl Handle<Lend> for Shelf {
    async fn handle(&mut self, _: &Lend, _: &mut Context) -> Result<Http<Book>, Failure> {
        let book = Book { title: "lent".to_owned(), pages: 1 };
        Ok(Http::created("/books/lent", book).header("cache-control", "max-age=9"))
    }
}

impl Handle<ShowBook> for Shelf {
    async fn handle(&mut self, ask: &ShowBook, _: &mut Context) -> Result<Book, Failure> {
        match &*ask.title {
            "none" => Err(Failure::new("not_found", "there is no such <book>")),
            "secret" => Err(Failure::new("../../secret", "no")),
            title => Ok(Book { title: title.to_owned(), pages: 3 }),
        }
    }
}

/// A folder of its own for a test, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("edri-pages-{name}-{}", std::process::id())));
        for (path, text) in files {
            folder.write(path, text);
        }
        folder
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().expect("is in a folder")).expect("is made");
        std::fs::write(path, text).expect("is written");
    }

    fn pages(&self) -> Pages {
        Pages::folder(self.0.join("pages"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn shelf(api: Api) -> Node {
    try_shelf(api).await.expect("starts")
}

async fn try_shelf(api: Api) -> edri::Result<Node> {
    let shelf = Manager::new("shelf").worker(|| Shelf).handles::<ShowBook>().handles::<Lend>();
    Ok(App::new("shelf").manager(shelf).api(api).start().await?)
}

fn gateway() -> Api {
    Api::bind("127.0.0.1:0").event::<Read>()
}

const SHOW: &str = "<h1>{{ title }}</h1><p>{{ pages }} pages of {{ event.name }} {{ event.fields.title }} at {{ path }}?{{ query }}</p>\
                    <a href=\"{{ url_for('shelf.show', title='a/b', then=true, of=[1, 2]) }}\">next</a>";
/// Templates for all events.
const ALL: [(&str, &str); 3] = [
    ("pages/books/show.html", SHOW),
    ("pages/books/lent.html", "{{ title }} {{ answer.pages }}"),
    ("pages/thanks.html", "thanks for {{ event.fields.title }}, {{ answer.groups }}, {{ url_for('shelf.read') }}"),
];

/// What a browser sees.
async fn browse(node: &Node, line: &str, body: &str) -> (u16, String) {
    let answer = ask(node, line, &[BROWSER], body.to_owned()).await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8", "{line}: {answer:?}");
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

#[tokio::test]
async fn a_browser_gets_a_page_and_others_get_data() {
    let folder = Folder::new("first", &ALL);
    let node = shelf(gateway().pages(folder.pages())).await;
    let page = ask(&node, "GET /books/%3Cb%3E?x=1", &[BROWSER], "").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"), "{page:?}");
    let shown = "<h1>&lt;b&gt;</h1><p>3 pages of shelf.show &lt;b&gt; at &#x2f;books&#x2f;%3Cb%3E?x=1</p>\
                 <a href=\"&#x2f;books&#x2f;a%2Fb?of=1&amp;of=2&amp;then=true\">next</a>";
    assert_eq!(String::from_utf8_lossy(&page.body), shown);
    assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
    assert_eq!((page.header("vary"), page.header("cache-control")), ("accept", "private, no-cache"));
    let head = ask(&node, "HEAD /books/%3Cb%3E?x=1", &[BROWSER], "").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (page.status, &*shown.len().to_string(), 0)
    );
    for accept in ["*/*", "application/json", "text/html;q=0.5, application/json", "application/json, text/html"] {
        let data = ask(&node, "GET /books/a", &[("accept", accept)], "").await;
        assert_eq!((data.json(), data.header("vary")), (json!({"title": "a", "pages": 3}), "accept"), "{accept}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn notifications_and_what_a_worker_chose_have_pages_too() {
    let folder = Folder::new("kinds", &ALL);
    let node = shelf(gateway().pages(folder.pages())).await;
    let thanks = browse(&node, "POST /read", r#"{"title": "<i>"}"#).await;
    assert_eq!(thanks, (202, "thanks for &lt;i&gt;, 0, &#x2f;read".to_owned()));
    let lent = ask(&node, "POST /lend", &[BROWSER], "{}").await;
    assert_eq!((lent.status.as_u16(), &*lent.body), (201, &b"lent 1"[..]));
    assert_eq!((lent.header("location"), lent.header("cache-control")), ("/books/lent", "max-age=9"));
    node.shutdown().await;
}

#[tokio::test]
async fn a_page_needs_no_event_and_stands_beside_those_of_other_methods() {
    let folder = Folder::new("plain", &ALL);
    folder.write("pages/about.html", "about {{ path }} {{ may('shelf.lend') }} {{ form.title }}");
    let pages = folder.pages().page("/about", "about.html").page("/lend", "about.html");
    let node = shelf(gateway().pages(pages)).await;
    assert_eq!(browse(&node, "GET /about", "").await, (200, "about &#x2f;about True ".to_owned()));
    assert_eq!(browse(&node, "GET /lend", "").await, (200, "about &#x2f;lend True ".to_owned()));
    assert_eq!(browse(&node, "POST /lend", "{}").await, (201, "lent 1".to_owned()));
    assert_eq!(ask(&node, "HEAD /about", &[], "").await.status, 200);
    let wrong = ask(&node, "POST /about", &[], "{}").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "GET, HEAD, OPTIONS"));
    node.shutdown().await;
    let wrong = try_shelf(gateway().pages(folder.pages().page("about", "about.html"))).await;
    assert!(wrong.expect_err("does not start").to_string().contains("the path begins with a slash"));
}

#[tokio::test]
async fn a_problem_is_shown_by_the_page_of_its_code_of_its_status_or_by_any() {
    let folder = Folder::new("problems", &ALL);
    folder.write("pages/secret.html", "secret");
    let node = shelf(gateway().pages(folder.pages())).await;
    let (status, page) = browse(&node, "GET /books/none", "").await;
    assert!(status == 404 && page.contains("there is no such &lt;book&gt;"), "the one that is built in: {page}");
    folder.write("pages/errors/default.html", "any {{ status }} {{ code }} {{ path }}");
    assert_eq!(browse(&node, "GET /nowhere", "").await, (404, "any 404 not_found &#x2f;nowhere".to_owned()));
    folder.write("pages/errors/404.html", "status {{ detail }}");
    assert_eq!(browse(&node, "GET /books/none", "").await, (404, "status there is no such &lt;book&gt;".to_owned()));
    folder.write("pages/errors/not_found.html", "code {{ title }} {{ caller.name }}{{ form.name }}");
    assert_eq!(browse(&node, "GET /books/none", "").await, (404, "code Not Found ".to_owned()));
    assert_eq!(
        browse(&node, "GET /books/secret", "").await,
        (422, "any 422 ..&#x2f;..&#x2f;secret &#x2f;books&#x2f;secret".to_owned())
    );
    let wrong = browse(&node, "POST /read", "{").await;
    assert_eq!(wrong, (400, "any 400 invalid_payload &#x2f;read".to_owned()));
    let data = ask(&node, "GET /books/none", &[("accept", "application/json")], "").await;
    assert_eq!(
        (data.header("content-type"), data.json()["code"].clone()),
        ("application/problem+json", json!("not_found"))
    );
    folder.write("pages/errors/404.html", "{{ 1 / 0 }}");
    folder.write("pages/errors/not_found.html", "{% if %}");
    let (status, page) = browse(&node, "GET /books/none", "").await;
    assert!(
        status == 404 && page.contains("there is no such &lt;book&gt;"),
        "the page of a problem is a problem: {page}"
    );
    node.shutdown().await;
}

#[tokio::test]
async fn who_is_refused_at_the_door_sees_a_page() {
    let folder = Folder::new("door", &ALL);
    let token = Token::hash_of("right");
    let access = Access::new().token(&token, "ann", Permissions::new().request("shelf.show"));
    let node = shelf(gateway().pages(folder.pages()).access(access)).await;
    folder.write("pages/errors/default.html", "{{ status }} {{ code }} {{ may('shelf.show') }}");
    for (token, expect) in [("Bearer wrong", "401 unauthorized False"), ("Bearer right", "403 forbidden True")] {
        let answer = ask(&node, "POST /lend", &[BROWSER, ("authorization", token)], "{}").await;
        assert_eq!(String::from_utf8_lossy(&answer.body), expect, "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let shown = "{{ caller.name }} {{ may('shelf.show') }} {{ may('shelf.lend') }} {{ may('none') }}";
    folder.write("pages/books/show.html", shown);
    let answer = ask(&node, "GET /books/a", &[BROWSER, ("authorization", "Bearer right")], "").await;
    assert_eq!(String::from_utf8_lossy(&answer.body), "ann True False False");
    node.shutdown().await;
}

#[tokio::test]
async fn while_developing_a_changed_template_is_shown_at_once_and_a_wrong_one_with_its_line() {
    let folder = Folder::new("develop", &ALL);
    let node = shelf(gateway().pages(folder.pages().develop(true))).await;
    folder.write("pages/base.html", "[{% block body %}{% endblock %}]");
    folder.write("pages/books/show.html", "{% extends 'base.html' %}{% block body %}one{% endblock %}");
    assert_eq!(browse(&node, "GET /books/a", "").await, (200, "[one]".to_owned()));
    folder.write("pages/base.html", "({% block body %}{% endblock %})");
    assert_eq!(browse(&node, "GET /books/a", "").await, (200, "(one)".to_owned()), "what it extends has changed");
    folder.write("pages/books/show.html", "first\n{{ title | no_such_filter }}");
    let (status, page) = browse(&node, "GET /books/a", "").await;
    assert!(status == 500 && page.contains("no_such_filter") && page.contains("show.html:2"), "{page}");
    folder.write("pages/books/show.html", "{{ url_for('shelf.show') }}");
    let (status, page) = browse(&node, "GET /books/a", "").await;
    assert!(status == 500 && page.contains("GET &#x2f;books&#x2f;{title}: give all fields of one"), "{page}");
    std::fs::remove_file(folder.0.join("pages/books/show.html")).expect("is removed");
    let (status, page) = browse(&node, "GET /books/a", "").await;
    assert!(status == 500 && page.contains("there is no template"), "{page}");
    let data = ask(&node, "GET /books/a", &[], "").await;
    assert_eq!(data.json()["pages"], 3, "data does not need it");
    node.shutdown().await;
}

#[tokio::test]
async fn when_not_developing_templates_are_read_once_and_nothing_is_said_of_what_is_wrong() {
    let folder = Folder::new("release", &ALL);
    folder.write("pages/books/show.html", "one {% if title == 'wrong' %}{{ 1 / 0 }}{% endif %}{% if title == 'long' %}{% for x in range(99999) %}{% for y in range(99999) %}{{ y }}{% endfor %}{% endfor %}{% endif %}");
    let node = shelf(gateway().pages(folder.pages().develop(false))).await;
    folder.write("pages/books/show.html", "two");
    assert_eq!(browse(&node, "GET /books/a", "").await, (200, "one ".to_owned()));
    for wrong in ["wrong", "long"] {
        let (status, page) = browse(&node, &format!("GET /books/{wrong}"), "").await;
        assert!(
            status == 500 && page.contains("the node&#x27;s log says why") && !page.contains("show.html"),
            "{page}"
        );
    }
    node.shutdown().await;
}

#[tokio::test]
async fn pages_that_cannot_be_keep_a_gateway_from_starting_or_say_what_to_do() {
    let refused = async |pages: Pages| try_shelf(gateway().pages(pages)).await.expect_err("does not start").to_string();
    let folder = Folder::new("refused", &ALL);
    let told = refused(Pages::folder("/no/such/folder")).await;
    assert!(told.contains("there is no folder `/no/such/folder`"), "{told}");
    let told = refused(folder.pages().assets("/no/such/folder")).await;
    assert!(told.contains("there is no folder `/no/such/folder` with assets"), "{told}");
    let told = refused(folder.pages().policy("default-src\n")).await;
    assert!(told.contains("is no Content-Security-Policy"), "{told}");
    folder.write("pages/other.html", "\n{% for %}");
    let told = refused(folder.pages().develop(false)).await;
    assert!(told.contains("other.html:2"), "{told}");
    folder.write("pages/other.html", "");
    std::fs::remove_file(folder.0.join("pages/thanks.html")).expect("is removed");
    let told = refused(folder.pages().develop(false)).await;
    assert!(told.contains("`shelf.read` names the template `thanks.html`, which is not in"), "{told}");
    let node = shelf(gateway()).await;
    let answer = ask(&node, "GET /books/a", &[BROWSER], "").await;
    assert_eq!(answer.status, 500);
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("this gateway has no pages: give it `Api::pages`"), "{detail}");
    node.shutdown().await;
}

#[tokio::test]
async fn an_asset_is_kept_for_good_under_the_hash_of_what_is_in_it() {
    for develop in [true, false] {
        let folder = Folder::new(&format!("assets-{develop}"), &ALL);
        folder.write("static/a b/style.css", "p {}");
        folder.write("static/.hidden", "secret");
        folder.write("static/x.0123456789abcdef.js", "odd");
        folder.write("pages/books/show.html", "{{ asset('a b/style.css') }}");
        let pages = folder.pages().assets(folder.0.join("static")).develop(develop);
        let node = shelf(gateway().pages(pages)).await;
        let (_, path) = browse(&node, "GET /books/a", "").await;
        let path = path.replace("&#x2f;", "/");
        let style = ask(&node, &format!("GET {path}"), &[], "").await;
        assert_eq!((&*style.body, style.header("content-type")), (&b"p {}"[..], "text/css; charset=utf-8"), "{path}");
        assert_eq!(style.header("cache-control"), "public, max-age=31536000, immutable");
        let hash = path.rsplit('.').nth(1).expect("a hash");
        let plain = ask(&node, "GET /assets/a%20b/style.css", &[], "").await;
        assert_eq!((&*plain.body, plain.header("cache-control")), (&b"p {}"[..], "no-cache"));
        let known = [("if-none-match", plain.header("etag"))];
        let same = ask(&node, "GET /assets/a%20b/style.css", &known, "").await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
        let other = ask(&node, &format!("GET {}", path.replace(hash, "0123456789abcdef")), &[], "").await;
        assert_eq!((other.status.as_u16(), other.header("cache-control")), (200, "no-cache"), "an older page's");
        assert_eq!(ask(&node, "GET /assets/x.0123456789abcdef.js", &[], "").await.header("cache-control"), "no-cache");
        for outside in [
            "/assets/.hidden",
            "/assets/../pages/thanks.html",
            "/assets/%2e%2e/pages/thanks.html",
            "/assets/..%2fpages%2fthanks.html",
            "/assets//etc/passwd",
            "/assets/",
            "/assets/none.css",
        ] {
            assert_eq!(ask(&node, &format!("GET {outside}"), &[], "").await.status, 404, "{outside}");
        }
        let changed = ask(&node, &format!("POST {path}"), &[], "").await;
        assert_eq!(changed.status, 405);
        node.shutdown().await;
    }
}
