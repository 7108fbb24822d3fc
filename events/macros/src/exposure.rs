//! How an event may be reached from outside: `expose`, `http = "..."` and, at fields, `#[http(..)]`.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::quote;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Data, Field, Fields, Ident, LitStr, Token};

use crate::duration;
use crate::errors::Errors;
use crate::event::option;
use crate::item::Item;
use crate::options::{Kind, Options};
use crate::suggest::{did_you_mean, list};
use crate::wire;

/// The most routes of an event; `ROUTES_MAX` of `edri_events`.
const ROUTES_MAX: usize = 16;
/// The most notifications that end what is cached; `STALE_ON_MAX` of `edri_events`.
const STALE_ON_MAX: usize = 16;

/// What was said of how an event may be reached.
#[derive(Default)]
pub(crate) struct Exposure {
    routes: Vec<String>,
    headers: Vec<(String, String)>,
    cookies: Vec<(String, String)>,
    page: Option<String>,
    form: Option<String>,
    then: Option<String>,
    caching: Option<Caching>,
}

/// What was said of responses that may be given again.
struct Caching {
    lifetime_ms: u64,
    public: bool,
    stale_on: Vec<String>,
}

impl Caching {
    /// The descriptor's `TypedCaching`, as code.
    fn tokens(&self, private: &TokenStream) -> TokenStream {
        let Self { lifetime_ms, public, stale_on } = self;
        quote!(#private::TypedCaching {
            lifetime: #private::Duration::from_millis(#lifetime_ms),
            public: #public,
            stale_on: &[#(#stale_on),*],
        })
    }
}

impl Exposure {
    /// The descriptor's `TypedExposure`, as code.
    pub(crate) fn tokens(&self, private: &TokenStream) -> TokenStream {
        let Self { routes, headers, cookies, page, form, then, caching } = self;
        let pairs = |pairs: &[(String, String)]| {
            let pairs = pairs.iter().map(|(field, name)| quote!((#field, #name)));
            quote!(&[#(#pairs),*])
        };
        let (headers, cookies) = (pairs(headers), pairs(cookies));
        let texts = [page, form, then].map(|text| option(text.as_ref()));
        let [page, form, then] = texts;
        let caching = option(caching.as_ref().map(|caching| caching.tokens(private)));
        quote!(#private::TypedExposure {
            routes: &[#(#routes),*],
            headers: #headers,
            cookies: #cookies,
            page: #page,
            form: #form,
            then: #then,
            caching: #caching,
        })
    }
}

/// Checks what was said, and gives it back if the event is exposed.
pub(crate) fn check(options: &Options, item: &Item, errors: &mut Errors) -> Option<Exposure> {
    let fields = fields(item);
    let mut exposure = Exposure::default();
    for route in &options.routes {
        match check_route(options, &route.value(), item, fields.as_deref()) {
            Ok(()) => exposure.routes.push(route.value()),
            Err(message) => errors.add(route.span(), message),
        }
    }
    if let Some(more) = options.routes.get(ROUTES_MAX) {
        errors.add(more.span(), format!("an event has {ROUTES_MAX} routes at most"));
    }
    let exposed = options.expose || options.is_given("http");
    for (field, ident) in fields.iter().flatten() {
        for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("http")) {
            if !exposed {
                let message =
                    "the event cannot be reached by HTTP: say `expose` or `http = \"...\"` in its `#[event(..)]`";
                errors.add(attribute.span(), message);
                continue;
            }
            let place = attribute.parse_args::<Place>();
            let name = wire::name(&item.input.attrs, field, ident, ident.span());
            match (place, name) {
                (Ok(Place::Header(header)), Ok(name)) => exposure.headers.push((name, header.to_ascii_lowercase())),
                (Ok(Place::Cookie(cookie)), Ok(name)) => exposure.cookies.push((name, cookie)),
                (place, name) => [place.err(), name.err()].into_iter().flatten().for_each(|error| errors.push(error)),
            }
        }
    }
    for (option, given) in
        [("page", &options.page), ("form", &options.form), ("then", &options.then), ("cache", &options.cache)]
    {
        if let Some(given) = given.as_ref().filter(|_| !exposed) {
            let message =
                format!("`{option}` is for an event that is reached by HTTP: say `expose` or `http = \"...\"` too");
            errors.add(given.span(), message);
        }
    }
    let mut template = |given: &Option<LitStr>| {
        let given = given.as_ref()?;
        check_template(&given.value()).map_err(|message| errors.add(given.span(), message)).ok()?;
        Some(given.value())
    };
    (exposure.page, exposure.form) = (template(&options.page), template(&options.form));
    exposure.then = options.then.as_ref().and_then(|then| {
        check_then(&then.value()).map_err(|message| errors.add(then.span(), message)).ok()?;
        Some(then.value())
    });
    exposure.caching = check_caching(options, errors);
    exposed.then_some(exposure)
}

/// Checks the name of a template: a path below the folder of pages.
fn check_template(name: &str) -> Result<(), String> {
    let is_segment = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.contains('\\');
    if name.len() <= 200 && name.split('/').all(is_segment) {
        return Ok(());
    }
    Err(format!("{name:?} is no template: write its path in the folder of pages, like \"tickets/list.html\""))
}

/// Checks where a browser goes next: a path on the same host, so that no field can lead elsewhere.
fn check_then(path: &str) -> Result<(), String> {
    let place = path.strip_prefix('/').filter(|rest| !rest.starts_with(['/', '\\', '{']));
    if path.len() <= 1024 && (place.is_some() || path == "/") && path.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("{path:?} is no path to go on to: write one of this host, like \"/tickets/{{id}}\""))
}

fn check_caching(options: &Options, errors: &mut Errors) -> Option<Caching> {
    let Some(lifetime) = &options.cache else {
        for (option, given) in [("public", options.public), ("stale_on", !options.stale_on.is_empty())] {
            if given {
                let message = format!("`{option}` says more of `cache`: say for how long too, `cache = \"60s\"`");
                errors.add(Span::call_site(), message);
            }
        }
        return None;
    };
    for name in &options.stale_on {
        if let Err(message) = crate::name::check(&name.value(), true) {
            errors.add(name.span(), message);
        }
    }
    if let Some(more) = options.stale_on.get(STALE_ON_MAX) {
        errors.add(more.span(), format!("at most {STALE_ON_MAX} notifications end what is cached of an event"));
    }
    let lifetime_ms =
        duration::parse_ms(&lifetime.value()).map_err(|message| errors.add(lifetime.span(), message)).ok()?;
    Some(Caching {
        lifetime_ms,
        public: options.public,
        stale_on: options.stale_on.iter().map(LitStr::value).collect(),
    })
}

/// The named fields of a struct; `None` when it is none.
fn fields(item: &Item) -> Option<Vec<(&Field, &Ident)>> {
    match &item.input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => {
                Some(fields.named.iter().filter_map(|field| Some((field, field.ident.as_ref()?))).collect())
            }
            Fields::Unit => Some(Vec::new()),
            Fields::Unnamed(_) => None,
        },
        Data::Enum(_) | Data::Union(_) => None,
    }
}

/// Checks a route by the rules of `edri_events::HttpRoute`, and that its places are those of fields.
fn check_route(options: &Options, route: &str, item: &Item, fields: Option<&[(&Field, &Ident)]>) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{route:?} is no route: {why}; write it like \"GET /risk/{{region}}\""));
    let Some((method, path)) = route.split_once(' ') else { return wrong("a method and a path are needed") };
    if !matches!(method, "GET" | "POST" | "PUT" | "PATCH" | "DELETE") {
        return wrong("the method is GET, POST, PUT, PATCH or DELETE");
    }
    if method == "GET" && matches!(options.kind, Some((Kind::Notification, _))) {
        return wrong("a GET changes nothing, and a notification is there to: use POST");
    }
    let Some(rest) = path.strip_prefix('/') else { return wrong("the path begins with a slash") };
    if route.len() > 1024 {
        return wrong("it is longer than 1,024 bytes");
    }
    let count = rest.split('/').count();
    let mut seen = Vec::new();
    for (index, segment) in rest.split('/').enumerate() {
        let last = index + 1 == count;
        match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => {
                let name = inner.strip_prefix('*').unwrap_or(inner);
                if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-')) {
                    return wrong("braces hold the name of a field");
                }
                if inner.starts_with('*') && !last {
                    return wrong("`{*field}` takes the rest of the path, so it comes last");
                }
                if seen.contains(&name) {
                    return wrong("a field has one place");
                }
                seen.push(name);
            }
            None if segment.is_empty() && !last => return wrong("it has an empty segment"),
            None if !segment.chars().all(|c| c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(c)) => {
                return wrong("a segment is letters, digits and `-._~`, or a field in braces");
            }
            None => {}
        }
    }
    let Some(fields) = fields else { return Ok(()) };
    let is_flat =
        |(field, _): &(&Field, &Ident)| wire::serde(&field.attrs).iter().any(|m| m.path().is_ident("flatten"));
    if fields.iter().any(is_flat) {
        // What the flattened type has is not known here.
        return Ok(());
    }
    let attributes = &item.input.attrs;
    let known: Vec<_> =
        fields.iter().filter_map(|(field, ident)| wire::name(attributes, field, ident, ident.span()).ok()).collect();
    match seen.into_iter().find(|place| !known.iter().any(|name| name == place)) {
        None => Ok(()),
        Some(place) => {
            let (owner, near) = (&item.input.ident, did_you_mean(place, known.iter().map(String::as_str)));
            let has = list(known.iter().map(String::as_str));
            Err(format!("`{owner}` has no field `{place}` for the place in {route:?}{near}; it has {has}"))
        }
    }
}

/// What stands in a field's `#[http(..)]`.
enum Place {
    Header(String),
    Cookie(String),
}

impl Parse for Place {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let forms = "a field comes from `header = \"x-tenant\"` or `cookie = \"session\"`";
        let word = input.call(Ident::parse_any).map_err(|error| syn::Error::new(error.span(), forms))?;
        let fail = |span, message: &str| Err(syn::Error::new(span, message));
        input.parse::<Token![=]>().map_err(|error| syn::Error::new(error.span(), forms))?;
        let text: LitStr = input.parse().map_err(|error| syn::Error::new(error.span(), forms))?;
        let name = text.value();
        // RFC 9110, section 5.6.2: a token.
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return fail(text.span(), "the name of a header or a cookie is letters, digits and `-`");
        }
        if !input.is_empty() {
            return Err(input.error("a field has one source"));
        }
        match &*word.to_string() {
            "header" => Ok(Self::Header(name)),
            "cookie" => Ok(Self::Cookie(name)),
            _ => fail(word.span(), forms),
        }
    }
}

/// The item without the `#[http(..)]` of its fields.
pub(crate) fn without_attributes(item: TokenStream) -> TokenStream {
    item.into_iter()
        .map(|token| match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => TokenTree::Group(fields_of(&group)),
            other => other,
        })
        .collect()
}

fn fields_of(group: &Group) -> Group {
    let mut kept = TokenStream::new();
    let mut tokens = group.stream().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        if is_hash && tokens.peek().is_some_and(is_http) {
            tokens.next();
        } else {
            kept.extend([token]);
        }
    }
    let mut stripped = Group::new(group.delimiter(), kept);
    stripped.set_span(group.span());
    stripped
}

/// Whether this is the `[http(..)]` of an attribute.
fn is_http(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let first = group.stream().into_iter().next();
    group.delimiter() == Delimiter::Bracket && matches!(first, Some(TokenTree::Ident(word)) if word == "http")
}
