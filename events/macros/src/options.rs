//! What stands in the parentheses of the attributes.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::{Ident, LitStr, Path, Token, Type, parse_quote};

use crate::errors::Errors;
use crate::suggest::{did_you_mean, list};

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Notification,
    Request,
    Tunnel,
}

use Kind::{Notification, Request, Tunnel};

impl Kind {
    const ALL: [Self; 3] = [Notification, Request, Tunnel];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Notification => "notification",
            Request => "request",
            Tunnel => "tunnel",
        }
    }

    fn of(word: &Ident) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| word == kind.word())
    }

    /// The option of this kind that does what `option` does for another.
    fn counterpart(self, option: &str) -> Option<&'static Spec> {
        let name = match (option, self) {
            ("ttl" | "timeout" | "idle_timeout", Notification) => "ttl",
            ("ttl" | "timeout" | "idle_timeout", Request) => "timeout",
            ("ttl" | "timeout" | "idle_timeout", Tunnel) => "idle_timeout",
            ("response", Tunnel) => "result",
            ("result", Request) => "response",
            _ => return None,
        };
        EVENT.find(name)
    }
}

/// One option of an attribute.
pub(crate) struct Spec {
    name: &'static str,
    kinds: &'static [Kind],
    /// What the value is, in words that follow "takes".
    value: &'static str,
    example: &'static str,
}

impl Spec {
    fn fits(&self, kind: Option<Kind>) -> bool {
        kind.is_none_or(|kind| self.kinds.contains(&kind))
    }
}

const fn spec(name: &'static str, kinds: &'static [Kind], value: &'static str, example: &'static str) -> Spec {
    Spec { name, kinds, value, example }
}

const ALL: &[Kind] = &Kind::ALL;
const TEXT: &str = "a text in quotes";
const TYPE: &str = "a type, without quotes";
const FLAG: &str = "";

/// The options that an attribute has.
struct Table {
    /// Whether the attribute begins with the kind of an event.
    has_kind: bool,
    specs: &'static [Spec],
}

impl Table {
    fn find(&self, name: &str) -> Option<&'static Spec> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    /// The names of the options that `kind` has, or of all when the kind is not known.
    fn names(&self, kind: Option<Kind>) -> impl Iterator<Item = &'static str> {
        self.specs.iter().filter(move |spec| spec.fits(kind)).map(|spec| spec.name)
    }
}

const EVENT: Table = Table { has_kind: true, specs: EVENT_SPECS };
const DATA: Table = Table { has_kind: false, specs: &[CRATE] };

const EVENT_SPECS: &[Spec] = &[
    spec("name", ALL, TEXT, "name = \"quake.recorded\""),
    spec("key", ALL, "the name of a field, without quotes", "key = region"),
    spec("ttl", &[Notification], TEXT, "ttl = \"5s\""),
    spec("timeout", &[Request], TEXT, "timeout = \"2s\""),
    spec("idle_timeout", &[Tunnel], TEXT, "idle_timeout = \"30s\""),
    spec("response", &[Request], TYPE, "response = Risk"),
    spec("idempotent", &[Request], FLAG, "idempotent"),
    spec("up", &[Tunnel], TYPE, "up = Chunk"),
    spec("down", &[Tunnel], TYPE, "down = Progress"),
    spec("result", &[Tunnel], TYPE, "result = Summary"),
    spec("http", ALL, TEXT, "http = \"GET /risk/{region}\""),
    spec("expose", ALL, FLAG, "expose"),
    spec("page", ALL, TEXT, "page = \"tickets.html\""),
    spec("form", ALL, TEXT, "form = \"ticket_new.html\""),
    spec("then", ALL, TEXT, "then = \"/tickets/{id}\""),
    spec("cache", &[Request], TEXT, "cache = \"60s\""),
    spec("public", &[Request], FLAG, "public"),
    spec("stale_on", &[Request], TEXT, "stale_on = \"ticket.changed\""),
    spec("description", ALL, TEXT, "description = \"A quake was measured.\""),
    CRATE,
];
const CRATE: Spec = spec("crate", ALL, "a path, without quotes", "crate = edri");

/// The options of an event, as given: each of its own type, none checked against the others.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) kind: Option<(Kind, Span)>,
    pub(crate) name: Option<LitStr>,
    pub(crate) key: Option<Ident>,
    pub(crate) time_limit: Option<LitStr>,
    pub(crate) idempotent: bool,
    pub(crate) response: Option<Type>,
    pub(crate) up: Option<Type>,
    pub(crate) down: Option<Type>,
    pub(crate) result: Option<Type>,
    pub(crate) description: Option<LitStr>,
    /// Where HTTP requests for it go.
    pub(crate) routes: Vec<LitStr>,
    pub(crate) expose: bool,
    /// Templates for browsers, and where a browser goes next.
    pub(crate) page: Option<LitStr>,
    pub(crate) form: Option<LitStr>,
    pub(crate) then: Option<LitStr>,
    /// How long a response may be given again, to whom, and what ends it.
    pub(crate) cache: Option<LitStr>,
    pub(crate) public: bool,
    pub(crate) stale_on: Vec<LitStr>,
    pub(crate) root: Option<Path>,
    given: Vec<&'static str>,
}

impl Options {
    /// Reads what stands in `#[event(..)]`.
    pub(crate) fn of_event(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        if arguments.is_empty() {
            errors.add(
                Span::call_site(),
                format!(
                    "say what kind of event it is, {}, and what it is called: \
                     `#[event(notification, name = \"quake.recorded\")]`",
                    list(Kind::ALL.map(Kind::word)).replace(" and ", " or ")
                ),
            );
            return options;
        }
        options.parse(&EVENT, arguments, errors);
        options
    }

    /// Reads what stands in `#[data(..)]`.
    pub(crate) fn of_data(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        options.parse(&DATA, arguments, errors);
        options
    }

    /// Where edri is.
    pub(crate) fn root(&self) -> Path {
        self.root.clone().unwrap_or_else(|| parse_quote!(::edri))
    }

    /// Whether the option was given, be its value readable or not.
    pub(crate) fn is_given(&self, option: &str) -> bool {
        self.given.contains(&option)
    }

    fn parse(&mut self, table: &Table, arguments: TokenStream, errors: &mut Errors) {
        let read = |input: ParseStream<'_>| {
            if table.has_kind {
                self.kind(input, errors);
            }
            while !input.is_empty() {
                if let Err(error) = self.option(table, input) {
                    errors.push(error);
                    skip_option(input);
                }
                skip_comma(input, errors);
            }
            Ok(())
        };
        if let Err(error) = read.parse2(arguments) {
            errors.push(error);
        }
    }

    /// Reads the kind, the first word.
    fn kind(&mut self, input: ParseStream<'_>, errors: &mut Errors) {
        let kinds = list(Kind::ALL.map(Kind::word));
        let word = match Ident::parse_any(&input.fork()) {
            Ok(word) if EVENT.find(&word.to_string()).is_none() => word,
            _ => {
                let message = "the kind of the event comes first, as in `#[event(request, ...)]`; the kinds are";
                return errors.add(input.span(), format!("{message} {kinds}"));
            }
        };
        match Kind::of(&word) {
            Some(kind) => {
                self.kind = Some((kind, word.span()));
                let _kind = Ident::parse_any(input);
            }
            None => {
                let near = did_you_mean(&word.to_string(), Kind::ALL.map(Kind::word));
                errors.add(word.span(), format!("`{word}` is no kind of event{near}; the kinds are {kinds}"));
                skip_option(input);
            }
        }
        skip_comma(input, errors);
    }

    /// Reads one option, up to the comma behind it.
    fn option(&mut self, table: &Table, input: ParseStream<'_>) -> syn::Result<()> {
        let kind = self.kind.map(|(kind, _)| kind);
        let known = || list(table.names(kind));
        if !input.peek(Ident::peek_any) {
            return Err(input.error(format!("an option begins with its name; the options are {}", known())));
        }
        let word = Ident::parse_any(input)?;
        let fail = |message: String| Err(syn::Error::new(word.span(), message));
        if table.has_kind
            && let Some(other) = Kind::of(&word)
        {
            if let Some(kind) = kind {
                return fail(format!("this event is a {} already; an event has one kind", kind.word()));
            }
            // That the kind comes first has been said; knowing it makes the other errors better.
            self.kind = Some((other, word.span()));
            return Ok(());
        }
        let Some(spec) = table.find(&word.to_string()) else {
            let near = did_you_mean(&word.to_string(), table.names(kind));
            let of_kind = kind.map(|kind| format!(" of a {}", kind.word())).unwrap_or_default();
            let are = if table.specs.len() == 1 { "the only option is" } else { &format!("the options{of_kind} are") };
            return fail(format!("unknown option `{word}`{near}; {are} {}", known()));
        };
        if let Some(kind) = kind
            && !spec.kinds.contains(&kind)
        {
            return fail(wrong_kind(spec, kind, &known()));
        }
        if self.is_given(spec.name) && !matches!(spec.name, "http" | "stale_on") {
            return fail(format!("`{word}` is given twice: keep one of them"));
        }
        self.given.push(spec.name);
        self.set(spec, &word, input)
    }

    /// Reads the value of the option and keeps it.
    fn set(&mut self, spec: &Spec, word: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        match spec.name {
            "name" => self.name = Some(value(spec, word, input)?),
            "key" => self.key = Some(value::<AnyIdent>(spec, word, input)?.0),
            "ttl" | "timeout" | "idle_timeout" => self.time_limit = Some(value(spec, word, input)?),
            "response" => self.response = Some(value(spec, word, input)?),
            "up" => self.up = Some(value(spec, word, input)?),
            "down" => self.down = Some(value(spec, word, input)?),
            "result" => self.result = Some(value(spec, word, input)?),
            "description" => self.description = Some(value(spec, word, input)?),
            "crate" => self.root = Some(value::<ModPath>(spec, word, input)?.0),
            "http" => self.routes.push(value(spec, word, input)?),
            "page" => self.page = Some(value(spec, word, input)?),
            "form" => self.form = Some(value(spec, word, input)?),
            "then" => self.then = Some(value(spec, word, input)?),
            "cache" => self.cache = Some(value(spec, word, input)?),
            "stale_on" => self.stale_on.push(value(spec, word, input)?),
            "public" => {
                flag(word, input)?;
                self.public = true;
            }
            "idempotent" => {
                flag(word, input)?;
                self.idempotent = true;
            }
            "expose" => {
                flag(word, input)?;
                self.expose = true;
            }
            other => unreachable!("the table has an option `{other}` that is not read"),
        }
        Ok(())
    }
}

/// A name, keywords too: a field may be called `r#type`, and `key = type` is what one writes.
struct AnyIdent(Ident);

impl Parse for AnyIdent {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Ident::parse_any(input).map(Self)
    }
}

struct ModPath(Path);

impl Parse for ModPath {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Path::parse_mod_style(input).map(Self)
    }
}

/// Reads `= value`.
fn value<T: Parse>(spec: &Spec, word: &Ident, input: ParseStream<'_>) -> syn::Result<T> {
    let Spec { value, example, .. } = spec;
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new(word.span(), format!("`{word}` needs {value}: `{example}`")));
    }
    let wrong = |error: syn::Error| syn::Error::new(error.span(), format!("`{word}` takes {value}: `{example}`"));
    input.parse::<Token![=]>().map_err(wrong)?;
    if input.is_empty() || input.peek(Token![,]) {
        return Err(syn::Error::new(word.span(), format!("`{word}` needs {value}: `{example}`")));
    }
    input.parse().map_err(wrong)
}

/// Checks that an option without a value stands alone.
fn flag(word: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(());
    }
    Err(input.error(format!("`{word}` takes no value: it stands alone, or is left away")))
}

/// Reads the comma behind the kind or an option. When there is none, goes on with the next option there is.
fn skip_comma(input: ParseStream<'_>, errors: &mut Errors) {
    if input.is_empty() || input.parse::<Token![,]>().is_ok() {
        return;
    }
    errors.add(input.span(), "expected `,` before the next option");
    if !(input.peek(Ident::peek_any) && input.peek2(Token![=])) {
        skip_option(input);
        let _comma = input.parse::<Token![,]>();
    }
}

/// Skips what is left of an option: up to a comma that an option, or nothing, follows. A comma within a type is none.
fn skip_option(input: ParseStream<'_>) {
    let is_next = |input: ParseStream<'_>| {
        let ahead = input.fork();
        ahead.parse::<Token![,]>().is_ok()
            && (ahead.is_empty()
                || (ahead.peek(Ident::peek_any)
                    && (ahead.peek2(Token![=])
                        || ahead.peek2(Token![,])
                        || ahead.cursor().ident().is_some_and(|(_, rest)| rest.eof()))))
    };
    while !input.is_empty() && !is_next(input) {
        let skipped = input.step(|cursor| cursor.token_tree().ok_or_else(|| cursor.error("a token")));
        if skipped.is_err() {
            return;
        }
    }
}

/// Says what to do about an option that another kind of event has.
fn wrong_kind(spec: &Spec, kind: Kind, known: &str) -> String {
    let option = spec.name;
    let owners: Vec<_> = spec.kinds.iter().map(|kind| format!("a {}", kind.word())).collect();
    let (owners, kind_word) = (owners.join(" or "), kind.word());
    match kind.counterpart(option) {
        Some(Spec { name, example, .. }) => {
            format!("`{option}` is an option of {owners}; the one of a {kind_word} is `{name}`: `{example}`")
        }
        None => format!("`{option}` is an option of {owners}; the options of a {kind_word} are {known}"),
    }
}

/// The text of a path, as serde's and schemars' `crate = "..."` want it.
pub(crate) fn path_text(path: &Path) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}
