//! The rules of one event: what its schemas say of its payloads.

use std::sync::OnceLock;

use edri_events::{Body, CodecError, DescriptorRef, FIELD_ERRORS_MAX, FieldError, Invalid};
use jsonschema::{PatternOptions, Validator};
use schemars::Schema;
use serde_json::Value;

use super::plain::Plain;
use super::{schema, words};

/// Of a payload of more values only the first error is told: all of them together might not fit in memory.
const ALL_ERRORS_VALUES_MAX: usize = 10_000;
/// The most steps back that a pattern with look-around or back-references may take for one text.
const BACKTRACK_MAX: usize = 10_000;
/// The most memory of one compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// The rules of an event and of the items that the opener of a tunnel sends. They are made when they are first asked for.
pub(crate) struct Rules {
    descriptor: DescriptorRef,
    event: OnceLock<Side>,
    up: OnceLock<Side>,
}

/// The rules of one schema.
struct Side {
    /// Whether every payload is held to it, and not only looked at when it could not be read.
    enforced: bool,
    /// Whether there are rules in it that are no schema's.
    custom: bool,
    validator: OnceLock<Result<Compiled, String>>,
}

struct Compiled {
    validator: Validator,
    /// How deep a payload may nest, where checking it might take forever otherwise.
    depth_max: Option<usize>,
}

impl Rules {
    pub(crate) fn new(descriptor: DescriptorRef) -> Self {
        Self { descriptor, event: OnceLock::new(), up: OnceLock::new() }
    }

    /// Whether they are those of this very descriptor.
    pub(crate) fn are_of(&self, descriptor: &DescriptorRef) -> bool {
        self.descriptor.same(descriptor)
    }

    /// Whether payloads, or items, are held to any.
    pub(crate) fn are_enforced(&self) -> bool {
        self.event_side().enforced || self.are_for_items()
    }

    /// Whether the items of a tunnel's opener are held to any.
    pub(crate) fn are_for_items(&self) -> bool {
        self.up_side().is_some_and(|side| side.enforced)
    }

    /// Holds a payload to them.
    ///
    /// # Errors
    ///
    /// [`CodecError::Invalid`] with all that is wrong, field by field.
    pub(crate) fn check(&self, payload: &Body) -> Result<(), CodecError> {
        let side = self.event_side();
        let schema = &self.descriptor.schemas().event;
        self.hold(side, schema, payload, || self.descriptor.check(payload))
    }

    /// Holds an item to them.
    pub(crate) fn check_item(&self, item: &Body) -> Result<(), CodecError> {
        match (self.up_side(), &self.descriptor.schemas().up) {
            (Some(side), Some(schema)) => self.hold(side, schema, item, || self.descriptor.check_up(item)),
            _ => Ok(()),
        }
    }

    /// What no schema can say is told with the rest, as far as the payload can be read at all.
    fn hold(
        &self,
        side: &Side,
        schema: &Schema,
        payload: &Body,
        custom: impl FnOnce() -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        if !side.enforced {
            return Ok(());
        }
        let mut errors = self.errors(side, schema, payload)?;
        if side.custom
            && let Err(error) = custom()
        {
            match error {
                CodecError::Invalid(more) => errors.extend_from_slice(more.errors()),
                // The schema says as much, and more.
                _ if !errors.is_empty() => {}
                other => return Err(other),
            }
        }
        Invalid::new(errors).map_or(Ok(()), |invalid| Err(CodecError::Invalid(invalid)))
    }

    /// What is wrong with a payload that could not be read: the codec knows of the first field only.
    pub(crate) fn explain(&self, payload: &Body, error: CodecError) -> CodecError {
        if !matches!(error, CodecError::Decode { .. }) || schema::says_nothing(&self.descriptor.schemas().event) {
            return error;
        }
        let errors = self.errors(self.event_side(), &self.descriptor.schemas().event, payload).unwrap_or_default();
        Invalid::new(errors).map_or(error, CodecError::Invalid)
    }

    fn event_side(&self) -> &Side {
        self.event.get_or_init(|| self.side(&self.descriptor.schemas().event))
    }

    fn up_side(&self) -> Option<&Side> {
        let up = self.descriptor.schemas().up.as_ref()?;
        Some(self.up.get_or_init(|| self.side(up)))
    }

    /// A type that can be read is what its schema says but for rules. Where there is no type, the schema is all there is.
    fn side(&self, schema: &Schema) -> Side {
        let is_typed = self.descriptor.rust_type().is_some();
        let custom = is_typed && schema::has_custom(schema.as_value());
        let enforced = match is_typed {
            true => custom || schema::has_rules(schema.as_value()),
            false => !schema::says_nothing(schema) && !schema::is_bytes(schema.as_value()),
        };
        Side { enforced, custom, validator: OnceLock::new() }
    }

    fn errors(&self, side: &Side, schema: &Schema, payload: &Body) -> Result<Vec<FieldError>, CodecError> {
        let compiled = side.validator.get_or_init(|| {
            compile(schema.as_value()).inspect_err(|why| {
                let event = self.descriptor.name();
                tracing::error!(%event, why, "the schema cannot be used, so all payloads are refused: mend it where the event is declared");
            })
        });
        let whole = |message: String| vec![FieldError::new("", message)];
        let compiled = match compiled {
            Ok(compiled) => compiled,
            Err(why) => return Ok(whole(format!("the schema of the event cannot be used: {why}"))),
        };
        let plain = Plain::read(payload)?;
        if let Some(most) = compiled.depth_max.filter(|most| plain.depth > *most) {
            return Ok(whole(format!(
                "it nests deeper than {most} levels, which is all that its schema can be checked for"
            )));
        }
        Ok(compiled.errors(&plain))
    }
}

impl Compiled {
    fn errors(&self, plain: &Plain) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Err(first) = self.validator.validate(&plain.value) else { return errors };
        if plain.values > ALL_ERRORS_VALUES_MAX {
            words::add(&first, &mut errors);
        } else {
            for error in self.validator.iter_errors(&plain.value).take(FIELD_ERRORS_MAX) {
                words::add(&error, &mut errors);
            }
        }
        errors
    }
}

fn compile(schema: &Value) -> Result<Compiled, String> {
    let schema = schema::prepared(schema)?;
    let depth_max = schema::depth_max(&schema)?;
    let patterns = PatternOptions::fancy_regex().backtrack_limit(BACKTRACK_MAX).size_limit(PATTERN_BYTES_MAX);
    let options = jsonschema::options().offline().should_validate_formats(true).with_pattern_options(patterns);
    let validator = options.build(&schema).map_err(|error| error.to_string())?;
    Ok(Compiled { validator, depth_max })
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("event", self.descriptor.name()).finish_non_exhaustive()
    }
}
