//! From a value to its symbol, and into the histories.

use super::history::History;
use super::plan::Plan;
use super::recent::Recent;
use super::symbol::{Class, Symbol};
use crate::schema::ColumnKind;

/// The symbol of a value's bits; not for text.
#[inline]
pub(crate) fn symbol_of(plan: &Plan, history: &History<i64>, recent: &Recent, bits: u64) -> Symbol {
    if plan.kind == ColumnKind::Bool {
        let code = (bits ^ history.last().cast_unsigned()) & 1;
        return Symbol {
            class: Class::Number,
            correction: 0,
            code,
        };
    }
    if recent.most != 0
        && let Some(rank) = recent.rank(bits)
    {
        return Symbol {
            class: Class::Recent,
            correction: 0,
            code: rank as u64,
        };
    }
    match plan.split(bits) {
        Some((quotient, correction)) => {
            let residual = quotient.wrapping_sub(history.predict(plan));
            Symbol {
                class: Class::Number,
                correction,
                code: crate::varint::zigzag(residual),
            }
        }
        None => Symbol {
            class: Class::Raw,
            correction: 0,
            code: bits,
        },
    }
}

/// Takes in a value; `quotient` is `None` for raw bits that have none.
#[inline]
pub(crate) fn learn(
    plan: &Plan,
    history: &mut History<i64>,
    recent: &mut Recent,
    quotient: Option<i64>,
    bits: u64,
) {
    let rank = if recent.takes(plan, quotient) {
        recent.rank(bits)
    } else {
        None
    };
    learn_at(plan, history, (recent, rank), quotient, bits);
}

/// As [`learn`], given the value's rank among the recent ones if it is one of them.
#[inline]
pub(crate) fn learn_at(
    plan: &Plan,
    history: &mut History<i64>,
    (recent, rank): (&mut Recent, Option<usize>),
    quotient: Option<i64>,
    bits: u64,
) {
    history.set_missing(false);
    if let Some(quotient) = quotient {
        history.learn(plan, quotient);
    }
    if recent.takes(plan, quotient) {
        recent.put(bits, rank);
    }
}
