use std::collections::VecDeque;

/// What came back of a slot, or came by mistake, in the order in which it is to go on: before everything that comes later.
#[derive(Debug)]
pub struct Returned<T> {
    waiting: VecDeque<T>,
    /// How many of the first have come back since something was taken.
    back: usize,
}

impl<T> Default for Returned<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), back: 0 }
    }
}

impl<T> Returned<T> {
    /// Something that was sent from here and not confirmed. It had gone before all that waits here, so it goes first again; what
    /// comes back together does so in the order in which it was sent.
    pub fn come_back(&mut self, item: T) {
        self.waiting.insert(self.back, item);
        self.back += 1;
    }

    /// Something that another node has sent here, where its key is not any more: behind what came so before.
    pub fn stray(&mut self, item: T) {
        self.waiting.push_back(item);
    }

    /// The next that is to go on.
    pub fn take(&mut self) -> Option<T> {
        self.back = 0;
        self.waiting.pop_front()
    }

    /// All that wait, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_again_goes_before_what_was_not_sent_again() {
        let mut returned = Returned::default();
        (1..=4).for_each(|item| returned.come_back(item));
        returned.stray(10);
        let sent: Vec<_> = std::iter::from_fn(|| returned.take()).take(2).collect();
        assert_eq!(sent, [1, 2]);
        returned.stray(11);
        sent.into_iter().for_each(|item| returned.come_back(item));
        let all: Vec<_> = std::iter::from_fn(|| returned.take()).collect();
        assert_eq!(all, [1, 2, 3, 4, 10, 11]);
    }
}
