//! The code that calls the rules of the user's own: `#[validate(custom(..))]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Data, Field, Fields, Meta, Path, Type};

use crate::item::{Item, cfgs};
use crate::rules::{Kind, item_of};
use crate::wire;

/// The body of a function `check(&self, errors: &mut FieldErrors)`; `None` when there is nothing to look at.
pub(crate) fn body(item: &Item, root: &Path) -> Option<TokenStream> {
    let whole = item.custom.iter().map(|function| call(function, &quote!(self)));
    let whole: TokenStream = whole.collect();
    let fields = match &item.input.data {
        Data::Struct(data) => {
            let looks = of_fields(item, None, &data.fields);
            looks.map(|Looks { pattern, calls }| quote!(let Self #pattern = self; #calls))
        }
        Data::Enum(data) => {
            let arms: Vec<_> = data
                .variants
                .iter()
                .enumerate()
                .filter_map(|(number, variant)| {
                    let Looks { pattern, calls } = of_fields(item, Some(number), &variant.fields)?;
                    let (cfg, name) = (cfgs(&variant.attrs), &variant.ident);
                    let calls = match variant_way(item, variant) {
                        Some(way) => quote!(errors.within(#way, |errors| { #calls });),
                        None => calls,
                    };
                    Some(quote!(#cfg Self::#name #pattern => { #calls }))
                })
                .collect();
            (!arms.is_empty()).then(|| quote!(match self { #(#arms)* #[allow(unreachable_patterns)] _ => {} }))
        }
        Data::Union(_) => None,
    };
    if whole.is_empty() && fields.is_none() {
        return None;
    }
    Some(quote! {
        #[allow(unused_imports)]
        use #root::__private::check::{Field, Known as _, Unknown as _};
        #whole
        #fields
    })
}

/// What is looked at of some fields.
struct Looks {
    pattern: TokenStream,
    calls: TokenStream,
}

fn of_fields(item: &Item, variant: Option<usize>, fields: &Fields) -> Option<Looks> {
    let (mut bound, mut calls) = (Vec::new(), Vec::new());
    for ((number, field), member) in fields.iter().enumerate().zip(fields.members()) {
        let custom = item.custom_fields.iter().filter(|(of, at, _)| (*of, *at) == (variant, number));
        let place = format_ident!("field_{number}", span = Span::mixed_site());
        let mut looks: TokenStream = custom.map(|(_, _, function)| call(function, &quote!(#place))).collect();
        if !is_plain(&field.ty) {
            looks.extend(quote!((&&Field(#place)).check(errors);));
        }
        if looks.is_empty() || is_skipped(field) {
            continue;
        }
        let cfg = cfgs(&field.attrs);
        bound.push(quote!(#cfg #member: #place,));
        calls.push(match way(item, variant, fields, number, field) {
            Some(way) => quote!(#cfg errors.within(#way, |errors| { #looks });),
            None => quote!(#cfg { #looks }),
        });
    }
    (!calls.is_empty()).then(|| Looks { pattern: quote!({ #(#bound)* .. }), calls: quote!(#(#calls)*) })
}

fn call(function: &Path, value: &TokenStream) -> TokenStream {
    // Where its type is wrong is where it is named.
    quote_spanned! {function.span()=>
        if let ::core::result::Result::Err(error) = #function(#value) {
            errors.refuse(&error);
        }
    }
}

/// Whether there is nothing in it that could have rules of its own.
fn is_plain(ty: &Type) -> bool {
    match Kind::of(ty) {
        Kind::Text | Kind::Number | Kind::Bool => true,
        Kind::List => item_of(ty).is_none_or(is_plain),
        Kind::Map | Kind::Unknown => false,
    }
}

fn serde_word(field: &Field, word: &str) -> bool {
    wire::serde(&field.attrs).iter().any(|meta| meta.path().is_ident(word))
}

fn is_skipped(field: &Field) -> bool {
    serde_word(field, "skip") || serde_word(field, "skip_deserializing")
}

/// What the way to a field goes on with; `None` when it does not.
fn way(item: &Item, variant: Option<usize>, fields: &Fields, number: usize, field: &Field) -> Option<String> {
    if serde_word(field, "flatten") {
        return None;
    }
    match &field.ident {
        Some(ident) => {
            // Fields of variants are renamed by rules of their own.
            let attributes = if variant.is_some() { &[][..] } else { &item.input.attrs[..] };
            let name = wire::name(attributes, field, ident, ident.span());
            Some(name.unwrap_or_else(|_| ident.unraw().to_string()))
        }
        None if fields.len() == 1 => None,
        None => Some(format!("[{number}]")),
    }
}

/// The name under which a variant's fields are: its own unless the enum says that another field has it.
fn variant_way(item: &Item, variant: &syn::Variant) -> Option<String> {
    let mut content = None;
    for meta in wire::serde(&item.input.attrs) {
        match &meta {
            Meta::Path(path) if path.is_ident("untagged") => return None,
            Meta::NameValue(pair) if pair.path.is_ident("tag") => content = content.or(Some(None)),
            Meta::NameValue(pair) if pair.path.is_ident("content") => content = Some(wire::text(&pair.value)),
            _ => {}
        }
    }
    match content {
        Some(content) => content,
        None => {
            let renamed = wire::serde(&variant.attrs).into_iter().find_map(|meta| match meta {
                Meta::NameValue(pair) if pair.path.is_ident("rename") => wire::text(&pair.value),
                _ => None,
            });
            Some(renamed.unwrap_or_else(|| variant.ident.unraw().to_string()))
        }
    }
}
