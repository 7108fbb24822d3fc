//! Forms with files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use edri::prelude::*;
use edri::{ApiLimits, Node};

use super::client::{Answer, ask};
use super::gateway;
use crate::support::{does, started, until};

/// A small file, with the event.
#[event(request, name = "up.photo", response = String, http = "POST /photo", then = "/photos/{name}")]
struct Photo {
    name: String,
    photo: Bytes,
    photo_name: Option<String>,
    photo_type: Option<String>,
}

/// A file of any size.
#[event(tunnel, name = "up.file", up = Bytes, down = (), result = Stored, http = "POST /tickets/{ticket}/files", then = "/tickets/{ticket}?bytes={bytes}")]
struct Upload {
    ticket: u32,
    note: String,
    file_name: String,
    #[serde(default)]
    secret: bool,
}

#[data]
struct Stored {
    bytes: u64,
    sum: u64,
}

#[derive(Clone, Default)]
struct Files {
    whole: Arc<AtomicU64>,
    broken: Arc<AtomicBool>,
    notes: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Worker for Files {}

impl HandleConcurrent<Upload> for Files {
    async fn handle(&self, upload: &Upload, cx: &mut Context) -> Result<Stored, Failure> {
        let Upload { ticket, note, file_name, secret } = upload;
        self.notes.lock().push(format!("{ticket} {note} {file_name} {secret}"));
        let mut tunnel = cx.accept::<Upload>()?;
        let (mut bytes, mut sum) = (0, 0);
        loop {
            match tunnel.recv().await {
                Ok(Some(chunk)) => {
                    bytes += chunk.len() as u64;
                    sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                }
                Ok(None) => break,
                Err(error) => {
                    self.broken.store(true, Ordering::SeqCst);
                    return Err(error.into());
                }
            }
        }
        self.whole.fetch_add(1, Ordering::SeqCst);
        Ok(Stored { bytes, sum })
    }
}

async fn node(limits: ApiLimits) -> (Node, Files) {
    let photo = does::<Photo, _>(|photo, _| {
        let Photo { name, photo, photo_name, photo_type } = photo;
        let said = format!("{name} {photo:?} {photo_name:?} {photo_type:?}");
        Box::pin(async move { Ok(said) })
    });
    let files = Files::default();
    let worker = files.clone();
    let app = App::new("gate")
        .manager(Manager::new("photo").worker(photo).handles::<Photo>())
        .manager(Manager::new("files").worker(move || worker.clone()).handles_concurrently::<Upload>());
    (started(app.api(gateway().limits(limits))).await, files)
}

/// A part of a form: the name, of a file the file's name, and what is in it.
type PartOf<'p> = (&'p str, Option<&'p str>, &'p [u8]);

fn form(parts: &[PartOf<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: image/png")).unwrap_or_default();
        body.extend_from_slice(
            format!("--xYz\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xYz--\r\n");
    body
}

const MULTIPART: (&str, &str) = ("content-type", "multipart/form-data; boundary=xYz");

async fn post(node: &Node, path: &str, accept: &str, body: Vec<u8>) -> Answer {
    ask(node, &format!("POST {path}"), &[MULTIPART, ("accept", accept)], body).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_small_file_is_a_field_of_bytes() {
    let mut limits = ApiLimits::default();
    limits.body_bytes = 10_000;
    let (node, _) = node(limits).await;
    let parts: [PartOf<'_>; 3] =
        [("name", None, "Zoë".as_bytes()), ("photo", Some("C:\\pics\\a.png"), &[0, 255, 13, 10]), ("send", None, b"")];
    let sent = post(&node, "/photo", "text/html", form(&parts)).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, "/photos/Zo%C3%AB"), "{sent:?}");
    let data = post(&node, "/photo", "application/json", form(&parts)).await;
    assert_eq!(data.json(), r#"Zoë b"\0\xff\r\n" Some("a.png") Some("image/png")"#);
    let none = post(&node, "/photo", "*/*", form(&[("name", None, b"a"), ("photo", Some(""), b"")])).await;
    assert_eq!(
        (code(&none), &none.json()["errors"][0]["field"]),
        ((400, "invalid_payload".to_owned()), &"photo".into())
    );
    let large = post(&node, "/photo", "*/*", form(&[("name", None, b"a"), ("photo", Some("x"), &[7; 10_001])])).await;
    assert_eq!(code(&large), (413, "too_large".to_owned()));
    node.shutdown().await;
}

#[tokio::test]
async fn a_file_of_a_form_goes_up_a_tunnel_and_the_fields_before_it_are_the_event() {
    let (node, files) = node(ApiLimits::default()).await;
    // More than the body of a request may have.
    let file: Vec<u8> = (0..8_000_000_u32).map(|number| (number % 251) as u8).collect();
    let sum: u64 = file.iter().map(|byte| u64::from(*byte)).sum();
    let parts: [PartOf<'_>; 5] = [
        ("note", None, b"a note"),
        ("secret", None, b"on"),
        ("file", Some("big.bin"), &file),
        ("other", Some(""), b""),
        ("save", None, b""),
    ];
    let sent = post(&node, "/tickets/7/files", "text/html,*/*;q=0.8", form(&parts)).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, "/tickets/7?bytes=8000000"), "{sent:?}");
    let data = post(&node, "/tickets/7/files", "application/json", form(&parts)).await;
    assert_eq!(data.json(), serde_json::json!({"bytes": 8_000_000, "sum": sum}));
    assert_eq!(*files.notes.lock(), ["7 a note big.bin true", "7 a note big.bin true"]);
    // A raw body goes up as before.
    let headers = [("content-type", "application/octet-stream")];
    let raw = ask(&node, "POST /tickets/7/files?note=x&file_name=y", &headers, vec![1; 10]).await;
    assert_eq!(raw.json()["sum"], 10);
    node.shutdown().await;
}

#[tokio::test]
async fn an_upload_past_its_limit_or_with_mistakes_is_broken_off_and_said() {
    let mut limits = ApiLimits::default();
    limits.upload_bytes = 1_000_000;
    limits.body_bytes = 100_000;
    let (node, files) = node(limits).await;
    let send = async |parts: &[PartOf<'_>]| post(&node, "/tickets/7/files", "*/*", form(parts)).await;
    let (note, file): (PartOf<'_>, PartOf<'_>) = (("note", None, b"n"), ("file", Some("f"), b"x"));
    assert_eq!(
        send(&[note, ("file", Some("f"), &vec![1; 1_000_000])]).await.header("location"),
        "/tickets/7?bytes=1000000"
    );
    let large = send(&[note, ("file", Some("f"), &vec![1; 4_000_000])]).await;
    assert_eq!(code(&large), (413, "too_large".to_owned()), "{large:?}");
    assert!(files.broken.swap(false, Ordering::SeqCst), "its worker knows that it is not whole");
    let behind = send(&[file, note]).await;
    assert_eq!(code(&behind), (400, "invalid_payload".to_owned()), "{behind:?}");
    assert_eq!(behind.json()["errors"][0]["field"], "note", "{behind:?}");
    let behind = send(&[note, file, ("secret", None, b"on")]).await;
    assert_eq!(behind.json()["errors"][0]["field"], "secret", "{behind:?}");
    assert_eq!(send(&[note, file, file]).await.json()["errors"][0]["message"], "one file is taken");
    assert_eq!(send(&[note]).await.json()["errors"][0]["message"], "a file is needed");
    assert_eq!(send(&[note, ("file", Some(""), b"")]).await.json()["errors"][0]["field"], "file");
    let long = vec![b'a'; 100_001];
    assert_eq!(code(&send(&[("note", None, &long), file]).await), (413, "too_large".to_owned()));
    assert_eq!(files.whole.load(Ordering::SeqCst), 1);
    // Bodies that are no form.
    let whole = form(&[note, ("file", Some("f"), &[1; 5000])]);
    for wrong in [&whole[..0], b"x", &whole[..40], &whole[..200], &whole[..whole.len() - 4], &vec![b'-'; 2_000_000]] {
        let answer = post(&node, "/tickets/7/files", "*/*", wrong.to_vec()).await;
        assert!([400, 413].contains(&answer.status.as_u16()), "{answer:?}");
    }
    let head = [&b"--xYz\r\nContent-Disposition: form-data; name=\""[..], &vec![b'a'; 2_000_000]].concat();
    assert_eq!(code(&post(&node, "/tickets/7/files", "*/*", head).await), (413, "too_large".to_owned()));
    let none = ask(&node, "POST /photo", &[("content-type", "multipart/form-data")], "x").await;
    assert_eq!(code(&none), (400, "invalid_payload".to_owned()));
    until("all tunnels have ended", || node.bus().account().in_hand == 0).await;
    assert_eq!(files.whole.load(Ordering::SeqCst), 1);
    node.shutdown().await;
}
