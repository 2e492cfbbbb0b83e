//! A list that is either received bytes or a slice of values to send.

use core::fmt;

use super::DecodeError;

/// An item of a [`List`].
pub trait Item<'a>: Copy + PartialEq + fmt::Debug {
    /// Takes one item off the front of `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes begin with none.
    fn take(bytes: &mut &'a [u8]) -> Result<Self, DecodeError>;
}

/// Items in order: borrowed from a packet, or from a slice of the caller's.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    items: Repr<'a, T>,
}

#[derive(Clone, Copy)]
enum Repr<'a, T> {
    Raw(&'a [u8]),
    Slice(&'a [T]),
}

impl<'a, T> List<'a, T> {
    /// No items.
    pub const EMPTY: Self = Self {
        items: Repr::Raw(&[]),
    };

    /// The items of a slice.
    #[must_use]
    pub const fn of(items: &'a [T]) -> Self {
        Self {
            items: Repr::Slice(items),
        }
    }

    /// Items back to back. The caller walks them with [`Items::try_next`] before it returns the list.
    pub(super) const fn raw(bytes: &'a [u8]) -> Self {
        Self {
            items: Repr::Raw(bytes),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        match self.items {
            Repr::Raw(bytes) => bytes.is_empty(),
            Repr::Slice(items) => items.is_empty(),
        }
    }
}

impl<'a, T: Item<'a>> List<'a, T> {
    /// Walks the items.
    #[must_use]
    pub const fn iter(&self) -> Items<'a, T> {
        Items { rest: self.items }
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Two lists are equal if their items are, whether raw or a slice.
impl<'a, T: Item<'a>> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Item<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Item<'a>> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Item<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Items<'a, T>;

    fn into_iter(self) -> Items<'a, T> {
        self.iter()
    }
}

/// Walks a [`List`].
#[derive(Clone)]
pub struct Items<'a, T> {
    rest: Repr<'a, T>,
}

impl<'a, T: Item<'a>> Items<'a, T> {
    /// The next item of bytes not yet checked.
    pub(super) fn try_next(&mut self) -> Result<Option<T>, DecodeError> {
        match &mut self.rest {
            Repr::Raw([]) | Repr::Slice([]) => Ok(None),
            Repr::Raw(bytes) => T::take(bytes).map(Some),
            Repr::Slice([first, rest @ ..]) => {
                let item = *first;
                self.rest = Repr::Slice(rest);
                Ok(Some(item))
            }
        }
    }
}

impl<'a, T: Item<'a>> Iterator for Items<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        // A list that reaches a caller was walked before, and holds no error.
        self.try_next().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_equal_by_their_items_however_they_are_held() {
        let raw = List::<&str>::raw(b"\x00\x01a\x00\x01b");
        assert_eq!(raw, List::of(&["a", "b"]));
        for other in [&["a"][..], &["a", "c"], &["a", "b", "c"], &[]] {
            assert_ne!(raw, List::of(other));
        }
        assert!(List::<&str>::EMPTY.is_empty() && List::<&str>::of(&[]).is_empty());
    }
}
