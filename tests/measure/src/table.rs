//! Figures with their goals beside them.

use std::fmt::Write as _;

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// There is none: it is good to know.
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// One measured figure.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            goal: Goal::None,
        }
    }

    pub(crate) fn at_least(self, goal: f64) -> Self {
        Self {
            goal: Goal::AtLeast(goal),
            ..self
        }
    }

    pub(crate) fn at_most(self, goal: f64) -> Self {
        Self {
            goal: Goal::AtMost(goal),
            ..self
        }
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal {
            Goal::None => None,
            Goal::AtLeast(goal) => Some(self.value >= goal),
            Goal::AtMost(goal) => Some(self.value <= goal),
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::None => String::new(),
            Goal::AtLeast(goal) => format!("at least {}", number(goal)),
            Goal::AtMost(goal) => format!("at most {}", number(goal)),
        }
    }
}

/// The table.
pub(crate) fn text(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<64} {:>12} {:<10} {:<18}\n",
        "measured", "value", "unit", "goal"
    );
    for figure in figures {
        let met = figure
            .is_met()
            .map_or("", |met| if met { "met" } else { "missed" });
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{:<64} {:>12} {:<10} {:<18} {met}",
            figure.what,
            number(figure.value),
            figure.unit,
            figure.goal_text()
        );
    }
    text
}

/// One object, for machines.
pub(crate) fn json(figures: &[Figure]) -> String {
    let list: Vec<_> = figures
        .iter()
        .map(|figure| {
            serde_json::json!({
                "what": figure.what,
                "value": figure.value,
                "unit": figure.unit,
                "goal": figure.goal_text(),
                "met": figure.is_met(),
            })
        })
        .collect();
    serde_json::json!({ "figures": list }).to_string()
}

fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
