use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edri_events::EventName;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{Access, Caller, Guard, Jwt, Permissions, Token, Verb};
use crate::problem::Problem;

const SECRET: &str = "a secret of more than thirty-two bytes";
const RSA: &str = include_str!("tests/rsa.pem");
const RSA_PUBLIC: &str = include_str!("tests/rsa.public.pem");
const ED: &str = include_str!("tests/ed.pem");
const ED_PUBLIC: &str = include_str!("tests/ed.public.pem");

/// A file for a test, gone with it.
struct File(PathBuf);

impl File {
    fn new(content: impl AsRef<[u8]>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("edri-access-{}-{number}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        Self(path)
    }

    /// Writes the file as careful people do: another one, which takes its place.
    fn replace(&self, content: impl AsRef<[u8]>) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, content).expect("a file");
        std::fs::rename(new, &self.0).expect("renamed");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn name(text: &str) -> EventName {
    EventName::new(text).expect("a name")
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("not so late") + seconds
}

fn claims() -> Value {
    json!({"sub": "anna", "exp": seconds_from_now(600), "edri": {"request": ["risk.*"]}})
}

fn with(changes: Value) -> Value {
    let mut all = claims();
    let (Value::Object(all_fields), Value::Object(changes)) = (&mut all, changes) else { panic!("maps") };
    for (claim, value) in changes {
        match value {
            Value::Null => all_fields.remove(&claim),
            value => all_fields.insert(claim, value),
        };
    }
    all
}

fn key(algorithm: Algorithm) -> EncodingKey {
    let der = |pem: &str| pem::parse(pem).expect("PEM").into_contents();
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der(ED)),
        _ => EncodingKey::from_rsa_der(&der(RSA)),
    }
}

fn sign(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &key(algorithm)).expect("signed")
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn guard(access: Access) -> Guard {
    access.open().expect("can be")
}

/// A guard that takes tokens signed with the secret.
fn secret(change: impl FnOnce(Jwt) -> Jwt) -> (Guard, File) {
    let file = File::new(format!("{SECRET}\n"));
    (guard(Access::new().jwt(change(Jwt::secret_file(&file.0)))), file)
}

fn ask(guard: &Guard, claims: &Value) -> Result<Caller, Problem> {
    guard.caller_by_token(&sign(Algorithm::HS256, None, claims))
}

#[track_caller]
fn refused(result: Result<Caller, Problem>, why: &str) {
    let problem = result.expect_err(why);
    assert_eq!(problem.code(), "unauthorized", "{problem:?}");
    assert!(problem.detail().contains(why), "{problem:?} should speak of {why}");
}

#[test]
fn a_static_token_is_known_by_its_hash_and_lets_do_what_it_was_given() {
    let (token, other) = (Token::random().expect("random"), Token::random().expect("random"));
    let permissions = Permissions::new().subscribe("quake.>").publish("sensor.*");
    let guard = guard(Access::new().token(&token.hash(), "dashboard", permissions));
    let caller = guard.caller_by_token(token.secret()).expect("known");
    assert_eq!(caller.name(), Some("dashboard"));
    assert!(caller.may(Verb::Subscribe, &name("quake.recorded.late")));
    assert!(caller.may(Verb::Publish, &name("sensor.read")));
    for (verb, event) in
        [(Verb::Publish, "quake.recorded"), (Verb::Publish, "sensor.read.late"), (Verb::Request, "sensor.read")]
    {
        assert!(!caller.may(verb, &name(event)), "{verb:?} {event}");
        assert_eq!(caller.refusal(verb, &name(event)).code(), "forbidden");
    }
    refused(guard.caller_by_token(other.secret()), "not known");
    refused(guard.caller_by_token(&token.hash()), "not known");
    refused(guard.caller_by_token(&format!("{} ", token.secret())), "not known");
    refused(guard.caller_by_token(&"x".repeat(100_000)), "at most");
}

#[test]
fn a_token_comes_once_and_as_a_bearer() {
    let token = Token::random().expect("random");
    let guard = guard(Access::new().token(&token.hash(), "dashboard", Permissions::all()));
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", value.parse().expect("a value"));
        }
        guard.caller_by_headers(&headers)
    };
    let bearer = format!("Bearer {}", token.secret());
    assert_eq!(headers(&[&bearer]).expect("known").name(), Some("dashboard"));
    assert_eq!(headers(&[&bearer.replace("Bearer", "bearer")]).expect("known").name(), Some("dashboard"));
    assert_eq!(headers(&[]).expect("anonymous").name(), None);
    refused(headers(&[&bearer, &bearer]), "several");
    refused(headers(&["Basic YTpi"]), "Bearer");
    refused(headers(&["Bearer "]), "Bearer");
    refused(headers(&[token.secret()]), "Bearer");
}

#[test]
fn somebody_without_a_token_may_do_everything_until_access_is_configured_and_then_nothing_unless_it_is_said() {
    let event = name("risk.assess");
    let open = Guard::default();
    assert!(open.anonymous().may(Verb::Serve, &event));
    let closed = guard(Access::new());
    assert_eq!(closed.anonymous().refusal(Verb::Request, &event).code(), "unauthorized");
    let some = guard(Access::new().anonymous(Permissions::new().request("risk.*")));
    assert!(some.anonymous().may(Verb::Request, &event));
    assert!(!some.anonymous().may(Verb::Publish, &event));
}

#[test]
fn what_operates_a_node_is_allowed_by_name_and_never_by_a_wildcard() {
    let may = |permissions: Permissions, event: &str| {
        let token = Token::random().expect("random");
        let guard = guard(Access::new().token(&token.hash(), "someone", permissions));
        guard.caller_by_token(token.secret()).expect("known").may(Verb::Request, &name(event))
    };
    for (pattern, allowed) in [
        ("edri.>", true),
        ("edri.node.*", true),
        ("edri.*.describe", true),
        ("edri.node.describe", true),
        (">", false),
        ("*.node.describe", false),
        ("*.>", false),
        ("edri.node.drain", false),
    ] {
        assert_eq!(may(Permissions::new().request(pattern), "edri.node.describe"), allowed, "{pattern}");
    }
    assert!(!may(Permissions::all(), "edri.node.describe"));
    assert!(may(Permissions::operator(), "edri.node.describe"));
    assert!(may(Permissions::all(), "edrix.node.describe"), "only names that begin with `edri.`");
    let (open, own) = (Guard::default().anonymous(), name("edri.node.describe"));
    for verb in [Verb::Publish, Verb::Request, Verb::Subscribe, Verb::Serve] {
        assert!(!open.may(verb, &own), "{verb:?}");
    }
    assert_eq!(open.refusal(Verb::Request, &own).code(), "forbidden");
    let named = guard(Access::new().anonymous(Permissions::new().request("edri.node.describe")));
    assert!(named.anonymous().may(Verb::Request, &own), "who has no token may do it when that is said");
    assert!(!guard(Access::new().anonymous(Permissions::all())).anonymous().may(Verb::Request, &own));
}

#[test]
fn a_signed_token_says_who_asks_and_what_may_be_done() {
    let (guard, _file) = secret(|jwt| jwt.scope("quakes:read", Permissions::new().subscribe("quake.>")));
    let caller = ask(&guard, &with(json!({"scope": "other quakes:read"}))).expect("good");
    assert_eq!(caller.name(), Some("anna"));
    assert!(caller.may(Verb::Request, &name("risk.assess")));
    assert!(caller.may(Verb::Subscribe, &name("quake.recorded")));
    assert!(!caller.may(Verb::Subscribe, &name("risk.assess")));
    assert!(caller.expires().is_some_and(|ends| ends > SystemTime::now() + Duration::from_secs(500)));
    let nothing = ask(&guard, &with(json!({"edri": null}))).expect("good");
    assert!(!nothing.may(Verb::Request, &name("risk.assess")));
}

#[test]
fn claims_are_checked_as_they_are() {
    let (guard, _file) = secret(|jwt| jwt.issuer("https://login").audience("quakes").leeway(Duration::from_secs(30)));
    let good = json!({"iss": "https://login", "aud": ["other", "quakes"]});
    let check = |changes: Value| {
        let mut all = good.clone();
        all.as_object_mut().expect("a map").extend(changes.as_object().expect("a map").clone());
        ask(&guard, &with(all))
    };
    check(json!({})).expect("good");
    check(json!({"aud": "quakes"})).expect("good");
    check(json!({"exp": seconds_from_now(-20)})).expect("within the leeway");
    check(json!({"exp": 1e18})).expect("far away, and no overflow");
    refused(check(json!({"exp": seconds_from_now(-40)})), "expired");
    refused(check(json!({"exp": null})), "`exp` is missing");
    for odd in [json!("99999999999"), json!(-1), json!([1]), json!({"a": 1})] {
        refused(check(json!({"exp": odd})), "the token");
        refused(check(json!({"nbf": odd})), "the token");
    }
    refused(check(json!({"exp": 1e300})), "the token");
    refused(check(json!({"nbf": seconds_from_now(40)})), "not valid yet");
    refused(check(json!({"iss": "https://evil"})), "`iss`");
    refused(check(json!({"iss": null})), "`iss`");
    refused(check(json!({"iss": ["https://login"]})), "`iss`");
    refused(check(json!({"aud": "quake"})), "`aud`");
    refused(check(json!({"aud": null})), "`aud`");
    refused(check(json!({"aud": 7})), "`aud`");
    refused(check(json!({"sub": null})), "`sub`");
    refused(check(json!({"sub": ""})), "`sub`");
    refused(check(json!({"sub": "a\nb"})), "`sub`");
    refused(check(json!({"edri": {"publsh": ["a"]}})), "`edri`");
    refused(check(json!({"edri": {"publish": ["a..b"]}})), "`edri`");
    refused(check(json!({"edri": true})), "`edri`");
}

#[test]
fn a_token_for_somebody_is_not_taken_where_no_audience_is_configured() {
    let (guard, _file) = secret(|jwt| jwt);
    refused(ask(&guard, &with(json!({"aud": "somebody"}))), "`aud`");
}

#[test]
fn a_forged_token_is_refused_however_it_was_forged() {
    let (guard, _file) = secret(|jwt| jwt);
    let good = sign(Algorithm::HS256, None, &claims());
    guard.caller_by_token(&good).expect("good");
    let parts: Vec<_> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    let more = part(&with(json!({"edri": {"serve": [">"]}})));
    for forged in [
        format!("{head}.{more}.{signature}"),
        format!("{head}.{body}."),
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode([0; 32])),
        format!("{head}.{body}.{}", &signature[..signature.len() - 4]),
        format!("..{signature}"),
        "a.b.c".to_owned(),
        "..".to_owned(),
    ] {
        assert_eq!(guard.caller_by_token(&forged).expect_err(&forged).code(), "unauthorized");
    }
    for alg in ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256"] {
        for signature in ["", signature] {
            let forged = format!("{}.{body}.{signature}", part(&json!({"alg": alg, "typ": "JWT"})));
            assert_eq!(guard.caller_by_token(&forged).expect_err(alg).code(), "unauthorized");
        }
    }
    // What has to be understood and is not.
    let critical = json!({"alg": "HS256", "crit": ["exp"]});
    refused(guard.caller_by_token(&format!("{}.{body}.{signature}", part(&critical))), "cannot be read");
}

#[test]
fn a_public_key_is_no_secret_for_another_algorithm() {
    for (public, algorithm) in [(RSA_PUBLIC, Algorithm::RS256), (ED_PUBLIC, Algorithm::EdDSA)] {
        let file = File::new(public);
        let guard = guard(Access::new().jwt(Jwt::key_file(&file.0)));
        guard.caller_by_token(&sign(algorithm, None, &claims())).expect("good");
        guard.caller_by_token(&sign(algorithm, Some("any"), &claims())).expect("a key in PEM has no name");
        let der = pem::parse(public).expect("PEM").into_contents();
        for secret in [public.as_bytes(), public.trim().as_bytes(), &der] {
            let key = EncodingKey::from_secret(secret);
            let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &key).expect("signed");
            refused(guard.caller_by_token(&forged), "algorithm");
        }
    }
}

#[test]
fn a_key_set_has_keys_by_name_and_what_is_not_for_signatures_is_left_out() {
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    let ed = pem::parse(ED_PUBLIC).expect("PEM").into_contents();
    let ed = URL_SAFE_NO_PAD.encode(&ed[ed.len() - 32..]);
    let keys = json!({"keys": [
        {"kty": "oct", "kid": "old", "k": secret, "alg": "HS256"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "new", "x": ed, "use": "sig"},
        {"kty": "oct", "kid": "encrypts", "k": secret, "use": "enc"},
        {"kty": "oct", "kid": "short", "k": "c2hvcnQ"},
        {"kty": "oct", "kid": "other", "k": secret, "alg": "HS512"},
        {"kty": "of another world"},
    ]});
    let file = File::new(keys.to_string());
    let guard = guard(Access::new().jwt(Jwt::jwks_file(&file.0)));
    guard.caller_by_token(&sign(Algorithm::HS256, Some("old"), &claims())).expect("good");
    guard.caller_by_token(&sign(Algorithm::EdDSA, Some("new"), &claims())).expect("good");
    guard.caller_by_token(&sign(Algorithm::HS256, None, &claims())).expect("the one that it can be");
    refused(guard.caller_by_token(&sign(Algorithm::HS256, Some("new"), &claims())), "algorithm");
    for unknown in ["encrypts", "short", "other", "third", ""] {
        refused(guard.caller_by_token(&sign(Algorithm::HS256, Some(unknown), &claims())), "key is not known");
    }
}

#[test]
fn keys_are_read_again_and_when_they_cannot_be_the_old_ones_stay() {
    let file = File::new(RSA_PUBLIC);
    let guard = guard(Access::new().jwt(Jwt::key_file(&file.0)));
    let keys = || guard.issuers[0].look();
    let (rsa, ed) = (sign(Algorithm::RS256, None, &claims()), sign(Algorithm::EdDSA, None, &claims()));
    assert_eq!(keys(), Ok(false));
    refused(guard.caller_by_token(&ed), "algorithm");
    file.replace(format!("{RSA_PUBLIC}{ED_PUBLIC}"));
    assert_eq!(keys(), Ok(true));
    guard.caller_by_token(&ed).expect("the new key");
    guard.caller_by_token(&rsa).expect("the old key");
    file.replace("nothing");
    assert!(keys().is_err());
    guard.caller_by_token(&ed).expect("stays");
    file.replace(ED_PUBLIC);
    assert_eq!(keys(), Ok(true));
    refused(guard.caller_by_token(&rsa), "algorithm");
}

#[test]
fn what_cannot_be_is_refused_at_start_with_advice() {
    let fails = |access: Access, why: &str| {
        let error = access.open().expect_err(why).to_string();
        assert!(error.contains(why), "`{error}` should speak of `{why}`");
    };
    let hash = Token::hash_of("x");
    fails(Access::new().token("x", "a", Permissions::new()), "sha256:");
    fails(Access::new().token(&hash.replace("sha256:", ""), "a", Permissions::new()), "sha256:");
    fails(Access::new().token(&format!("{hash}0"), "a", Permissions::new()), "sha256:");
    fails(Access::new().token("sha256:é", "a", Permissions::new()), "sha256:");
    fails(Access::new().token(&hash, "", Permissions::new()), "1 to 256 bytes");
    fails(Access::new().token(&hash, "a", Permissions::new().publish("a..b")), "permissions of `a`");
    fails(Access::new().jwt(Jwt::key_file("/nowhere/at.all")), "/nowhere/at.all");
    let keys = |content: &str, jwt: fn(PathBuf) -> Jwt, why: &str| {
        let file = File::new(content);
        fails(Access::new().jwt(jwt(file.0.clone())), why);
    };
    keys(RSA, Jwt::key_file, "private key");
    keys("", Jwt::key_file, "no key");
    keys("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", Jwt::key_file, "cannot be used");
    keys("{", Jwt::jwks_file, "no JSON");
    keys("{}", Jwt::jwks_file, "`keys`");
    keys(r#"{"keys": []}"#, Jwt::jwks_file, "no key");
    keys(r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#, Jwt::jwks_file, "can be guessed");
    keys("short", Jwt::secret_file, "can be guessed");
    keys(RSA_PUBLIC, Jwt::secret_file, "Jwt::key_file");
}

#[test]
fn headers_of_the_node_cannot_be_set_from_outside() {
    let mut headers = HeaderMap::new();
    headers.insert("edri-caller", "admin".parse().expect("a value"));
    let problem = Guard::default().caller_by_headers(&headers).expect_err("reserved");
    assert_eq!(problem.code(), "invalid_headers");
}

#[test]
fn tokens_that_another_library_has_signed_are_taken() {
    let foreign: Value = serde_json::from_str(include_str!("tests/foreign.json")).expect("JSON");
    let (set, pem) = (File::new(foreign.to_string()), File::new(foreign["pem"].as_str().expect("PEM")));
    for jwt in [Jwt::jwks_file(&set.0), Jwt::key_file(&pem.0)] {
        let guard = guard(Access::new().jwt(jwt));
        for (algorithm, token) in foreign["tokens"].as_object().expect("a map") {
            let caller = guard.caller_by_token(token.as_str().expect("a text")).expect(algorithm);
            assert_eq!(caller.name(), Some("anna"), "{algorithm}");
            assert!(caller.may(Verb::Request, &name("risk.assess")), "{algorithm}");
        }
    }
}
