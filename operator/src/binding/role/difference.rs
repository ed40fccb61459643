//! PURE: in which order the policies of a role are added and removed.

use crate::change::Change;

/// What makes one sort of policies, managed or inline, as specified. Sizes are in the unit of IAM's quota: policies or characters.
#[derive(Debug)]
pub struct Difference {
    /// What IAM may refuse, and by how much the role grows.
    pub additions: Vec<(Change, isize)>,
    /// What takes rights away, and by how much the role shrinks.
    pub removals: Vec<(Change, isize)>,
    /// What the quota leaves before all of that.
    pub room: isize,
}

impl Difference {
    /// All changes, in their order: first the additions of both sorts that the quotas allow at once, since IAM may refuse an addition and the
    /// role must then still have all of its policies. Then the additions that exceed a quota, each after as few removals as make it
    /// possible. Then the other removals.
    #[must_use]
    pub fn in_order(sorts: [Self; 2]) -> Vec<Change> {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for Self { additions, removals, mut room } in sorts {
            let mut removals = removals.into_iter();
            let mut is_full = false;
            for (addition, size) in additions {
                while room < size {
                    let Some((removal, freed)) = removals.next() else { break };
                    is_full = true;
                    room += freed;
                    last.push(removal);
                }
                room -= size;
                if is_full { &mut last } else { &mut first }.push(addition);
            }
            last.extend(removals.map(|(removal, _)| removal));
        }
        first.extend(last);
        first
    }
}
