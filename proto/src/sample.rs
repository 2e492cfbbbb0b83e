//! Values of samples: one typed value, and a value that owns its text.

/// The value of one sample, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// On or off.
    Bool(bool),
    /// A whole number.
    I64(i64),
    /// A single-precision number; every bit pattern is kept.
    F32(f32),
    /// A double-precision number; every bit pattern is kept.
    F64(f64),
    /// Text: a state's name, an enum, a short message.
    Str(&'a str),
}

impl Value<'_> {
    /// Whether both hold the same bits: NaN equals itself, and -0.0 differs from 0.0.
    #[must_use]
    pub fn same_bits(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::I64(a), Value::I64(b)) => a == b,
            (Self::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
            (Self::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::Str(a), Value::Str(b)) => a == b,
            _ => false,
        }
    }
}

/// The value of one sample, which owns its text.
#[cfg(feature = "alloc")]
#[derive(Debug, Clone, PartialEq)]
pub enum OwnedValue {
    /// On or off.
    Bool(bool),
    /// A whole number.
    I64(i64),
    /// A single-precision number.
    F32(f32),
    /// A double-precision number.
    F64(f64),
    /// Text.
    Str(alloc::string::String),
}

#[cfg(feature = "alloc")]
impl OwnedValue {
    /// The value, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> Value<'_> {
        match self {
            Self::Bool(v) => Value::Bool(*v),
            Self::I64(v) => Value::I64(*v),
            Self::F32(v) => Value::F32(*v),
            Self::F64(v) => Value::F64(*v),
            Self::Str(v) => Value::Str(v),
        }
    }
}

#[cfg(feature = "alloc")]
impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(v),
            Value::I64(v) => Self::I64(v),
            Value::F32(v) => Self::F32(v),
            Value::F64(v) => Self::F64(v),
            Value::Str(v) => Self::Str(v.into()),
        }
    }
}
