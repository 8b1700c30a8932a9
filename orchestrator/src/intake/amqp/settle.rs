//! What becomes of deliveries: stored first, then settled with the broker. Must never happen here: an acknowledgement of
//! what is not stored, or a delivery put back.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use refit_workflows::event::CloudEvent;
use tokio::time::timeout;

use super::super::delivery::Envelope;
use super::{AmqpSource, Ended};
use crate::broker::{self, ANSWER_WITHIN};
use crate::engine::{DeadLetter, Engine, EngineError};
use crate::health::Counts;
use crate::store::StoreError;

/// The most events stored in one transaction, where one delivery does not hold more.
const EVENTS_MAX: usize = 1000;
/// The longest a batch may take to be stored before the database counts as gone.
const STORE_WITHIN: Duration = Duration::from_secs(30);

/// A delivery as it was read.
struct Read<'d> {
    delivery: &'d Delivery,
    envelope: Envelope,
    outcome: Outcome,
}

/// What a delivery has come to.
enum Outcome {
    /// It is done when all of these are stored. None: there was nothing to keep.
    Events(Vec<CloudEvent>),
    /// It could not be read, or not be stored.
    Dead(DeadLetter),
}

/// Stores a batch of deliveries and tells the broker, part by part where it holds many events.
pub(super) async fn settle(
    engine: &Engine,
    source: &AmqpSource,
    batch: &[Delivery],
) -> Result<Counts, Ended> {
    let mut counts = Counts::default();
    let mut part = Vec::new();
    let mut events = 0;
    for delivery in batch {
        let read = Read::of(source, delivery);
        let more = read.events().len();
        if !part.is_empty() && events + more > EVENTS_MAX {
            counts += settle_part(engine, source, std::mem::take(&mut part)).await?;
            events = 0;
        }
        events += more;
        part.push(read);
    }
    counts += settle_part(engine, source, part).await?;
    Ok(counts)
}

async fn settle_part(engine: &Engine, source: &AmqpSource, mut part: Vec<Read<'_>>) -> Result<Counts, Ended> {
    let events = part.iter().flat_map(Read::events).cloned().collect();
    let dead = part.iter().filter_map(Read::dead).cloned().collect();
    if let Err(reason) = store(engine, events, dead).await? {
        let (name, count) = (source.name.as_str(), part.len());
        tracing::warn!(source = name, "a batch of {count} was refused ({reason}), storing one by one");
        for read in &mut part {
            read.store_alone(engine, source).await?;
        }
    }
    acknowledge(&part).await?;
    let mut counts = Counts::default();
    for read in &part {
        counts.deliveries += 1;
        counts.events += read.events().len() as u64;
        counts.dead_letters += u64::from(read.dead().is_some());
        counts.empty += u64::from(read.events().is_empty() && read.dead().is_none());
    }
    Ok(counts)
}

impl<'d> Read<'d> {
    fn of(source: &AmqpSource, delivery: &'d Delivery) -> Self {
        let envelope = Envelope::of(delivery);
        let read = source.format.read(&envelope.delivery(&source.uri, &delivery.data));
        let outcome = match read {
            Ok(events) => Outcome::Events(events),
            Err(malformed) => Outcome::Dead(dead_letter(source, delivery, &envelope, malformed.message)),
        };
        Self { delivery, envelope, outcome }
    }

    fn events(&self) -> &[CloudEvent] {
        match &self.outcome {
            Outcome::Events(events) => events,
            Outcome::Dead(_) => &[],
        }
    }

    fn dead(&self) -> Option<&DeadLetter> {
        match &self.outcome {
            Outcome::Events(_) => None,
            Outcome::Dead(letter) => Some(letter),
        }
    }

    /// A delivery that the store refuses must not hold up the others: it becomes a dead letter.
    async fn store_alone(&mut self, engine: &Engine, source: &AmqpSource) -> Result<(), Ended> {
        if let Err(reason) = store(engine, self.events().to_vec(), Vec::new()).await? {
            let reason = format!("the store refused the events: {reason}");
            self.outcome = Outcome::Dead(dead_letter(source, self.delivery, &self.envelope, reason));
        }
        if let Some(letter) = self.dead()
            && let Err(reason) = store(engine, Vec::new(), vec![letter.clone()]).await?
        {
            return Err(Ended::Store(format!("a dead letter was refused: {reason}")));
        }
        Ok(())
    }
}

/// Stores; the inner error is a refusal of what was to be stored, the outer one an absent database.
async fn store(
    engine: &Engine,
    events: Vec<CloudEvent>,
    dead: Vec<DeadLetter>,
) -> Result<Result<(), String>, Ended> {
    if events.is_empty() && dead.is_empty() {
        return Ok(Ok(()));
    }
    match timeout(STORE_WITHIN, engine.record(events, dead)).await {
        Ok(Ok(_)) => Ok(Ok(())),
        Ok(Err(EngineError::Store(error @ (StoreError::Unavailable(_) | StoreError::Conflict(_))))) => {
            Err(Ended::Store(error.to_string()))
        }
        Ok(Err(error)) => Ok(Err(error.to_string())),
        Err(_) => {
            Err(Ended::Store(format!("no answer from the database within {} s", STORE_WITHIN.as_secs())))
        }
    }
}

/// Each dead delivery on its own, because the broker hands those to its dead-letter exchange; then everything up to the
/// last good one in one frame.
async fn acknowledge(part: &[Read<'_>]) -> Result<(), Ended> {
    const GONE: Ended = Ended::Doubt("RabbitMQ takes no acknowledgement on this channel any more");
    for read in part.iter().filter(|read| read.dead().is_some()) {
        let rejected = read.delivery.acker.reject(BasicRejectOptions { requeue: false });
        if !broker::within(ANSWER_WITHIN, "reject a dead letter", rejected).await? {
            return Err(GONE);
        }
    }
    if let Some(last) = part.iter().rfind(|read| read.dead().is_none()) {
        let acked = last.delivery.acker.ack(BasicAckOptions { multiple: true });
        if !broker::within(ANSWER_WITHIN, "acknowledge events", acked).await? {
            return Err(GONE);
        }
    }
    Ok(())
}

fn dead_letter(source: &AmqpSource, delivery: &Delivery, envelope: &Envelope, reason: String) -> DeadLetter {
    let context = envelope.context(delivery.redelivered);
    DeadLetter::new(&source.name, reason, context, &envelope.identity(), &delivery.data)
}
