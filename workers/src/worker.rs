//! What users write.

use edri_events::{Envelope, Event, Failure, Value};

use crate::Context;

/// Code that handles events. An instance belongs to one host; `started` and `stopping` run once in its life.
///
/// ```
/// use edri_workers::Worker;
///
/// #[derive(Default)]
/// struct Counter {
///     seen: u64,
/// }
///
/// impl Worker for Counter {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a worker",
    label = "`{Self}` handles events only as a worker",
    note = "write `impl Worker for {Self} {{}}`; its methods `started` and `stopping` are optional"
)]
pub trait Worker: Send + 'static {
    /// Runs before the first event. When it fails, the instance is restarted with back-off; by a failure that is
    /// [for good](Failure::for_good) its manager fails at once.
    ///
    /// Every subscription of the node is in place already: what is published here reaches all who want it.
    fn started(&mut self, cx: &mut Context) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = cx;
        std::future::ready(Ok(()))
    }

    /// Runs after the last event, when the instance is stopped in good order.
    fn stopping(&mut self, cx: &mut Context) -> impl Future<Output = ()> + Send {
        let _ = cx;
        std::future::ready(())
    }
}

/// Handles events of type `E`, one at a time.
///
/// Returns nothing for a notification, the response for a request, the final result for a tunnel. A [`Failure`] goes to
/// the requester; for a notification the manager's retry policy decides, and at last it is a dead letter.
///
/// ```
/// # use edri_events::{event, Failure};
/// # use edri_workers::{Context, Handle, Worker};
/// #[event(request, name = "sum", response = u64, crate = edri_events)]
/// struct Sum(Vec<u64>);
///
/// struct Calculator;
/// impl Worker for Calculator {}
/// impl Handle<Sum> for Calculator {
///     async fn handle(&mut self, sum: &Sum, _: &mut Context) -> Result<u64, Failure> {
///         Ok(sum.0.iter().sum())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "worker `{Self}` has no handler for `{E}`",
    label = "`{Self}` does not handle `{E}`",
    note = "write `impl Handle<{E}> for {Self} {{ async fn handle(&mut self, event: &{E}, cx: &mut Context) -> .. }}`"
)]
pub trait Handle<E: Event>: Worker {
    /// Handles one event. The future is dropped when the manager's time limit ends or the node stops for good.
    fn handle(&mut self, event: &E, cx: &mut Context) -> impl Future<Output = Result<E::Output, Failure>> + Send;
}

/// Handles events of type `E`, several at a time in one instance.
#[diagnostic::on_unimplemented(
    message = "worker `{Self}` has no concurrent handler for `{E}`",
    label = "`{Self}` does not handle `{E}` with `&self`",
    note = "write `impl HandleConcurrent<{E}> for {Self} {{ async fn handle(&self, event: &{E}, cx: &mut Context) -> .. }}`"
)]
pub trait HandleConcurrent<E: Event>: Worker + Sync {
    /// Handles one event while others may be running.
    fn handle(&self, event: &E, cx: &mut Context) -> impl Future<Output = Result<E::Output, Failure>> + Send;
}

/// Handles events by name, without their Rust types.
#[diagnostic::on_unimplemented(
    message = "worker `{Self}` has no untyped handler",
    label = "`{Self}` does not handle events by name",
    note = "write `impl HandleAny for {Self} {{ async fn handle(&mut self, event: &Envelope, cx: &mut Context) -> .. }}`"
)]
pub trait HandleAny: Worker {
    /// Handles one event. What is returned answers a request or ends a tunnel; a notification needs none. It is a
    /// [`Body`](edri_events::Body) made a value by `into`, or any value by [`Value::typed`], which is encoded only where it leaves
    /// the process.
    fn handle(
        &mut self,
        event: &Envelope,
        cx: &mut Context,
    ) -> impl Future<Output = Result<Option<Value>, Failure>> + Send;
}
