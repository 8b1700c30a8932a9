//! Lays a graph on rails, one step a line. Knows no names, states or colours: places in, box characters out.
//!
//! How a drawing is read; the tests hold a reader that follows these rules and finds exactly the graph again:
//!
//! - A rail runs down from the steps that feed it to the steps that need them. A mark at its lower end needs it.
//! - A line from a mark to the end of a rail (`╰ ╯ ┴`) needs it, one to its beginning (`╮ ┬`) feeds it. Where the rail
//!   goes on both ways, the line needs it when the rail is left of the mark (`├ ┼`), and feeds it when right (`┤ ┼`).
//! - `─│─` is a crossing: nothing meets there.
//! - A mark right under a mark needs it, unless the upper one feeds to the right or the lower one needs from the left.
//!
//! So everything flows down, and from left to right. A step feeds one rail only, which steps needed by the same ones
//! share: fan-out and fan-in of any width take three columns.

use std::collections::HashMap;

/// The mark of a step.
pub(super) const MARK: char = '●';

/// The most rails side by side; a graph that needs more is no longer readable on them.
pub(super) const RAILS_MAX: usize = 12;

/// The lines of a drawing, all of one width, each with one [`MARK`].
#[derive(Debug)]
pub(super) struct Drawing {
    pub(super) lines: Vec<String>,
    columns: usize,
    crossings: usize,
}

/// Which steps share a rail, among those that the same steps need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Those that need the same as well.
    Alike,
    /// None.
    Never,
    /// All.
    Always,
}

/// A way to lay out, one of several that are tried.
#[derive(Clone, Copy, Debug)]
struct Manner {
    share: Share,
    /// Whether the last of several steps on a rail stands under the rail, and not in line with the others.
    under: bool,
}

impl Manner {
    const ALL: [Self; 6] = [
        Self { share: Share::Alike, under: false },
        Self { share: Share::Never, under: false },
        Self { share: Share::Always, under: false },
        Self { share: Share::Alike, under: true },
        Self { share: Share::Never, under: true },
        Self { share: Share::Always, under: true },
    ];

    /// The price of a drawing: crossings are hard to read, width is, and equal steps that stand apart.
    fn price(self, drawing: &Drawing) -> usize {
        3 * drawing.crossings + drawing.columns + if self.under { 2 } else { 0 }
    }
}

/// The clearest drawing of a graph that is its own transitive reduction: `needs` ascending, each before the step that
/// needs it. None when it takes more than [`RAILS_MAX`] rails.
pub(super) fn draw(needs: &[Vec<usize>]) -> Option<Drawing> {
    let plan = Plan::of(needs);
    Manner::ALL
        .into_iter()
        .filter_map(|manner| {
            Layout::new(&plan, manner).run().map(|drawing| (manner.price(&drawing), drawing))
        })
        .min_by_key(|(price, _)| *price)
        .map(|(_, drawing)| drawing)
}

/// What all layouts of a graph ask for.
struct Plan {
    /// For each step, the steps that need it, ascending.
    dependents: Vec<Vec<usize>>,
    /// Equal for steps that the same steps need.
    group: Vec<usize>,
    /// The last step of the group.
    group_last: Vec<usize>,
    /// The last step of the group that needs the same as this one.
    alike_last: Vec<usize>,
}

impl Plan {
    fn of(needs: &[Vec<usize>]) -> Self {
        let mut dependents = vec![Vec::new(); needs.len()];
        for (step, needs) in needs.iter().enumerate() {
            for &need in needs {
                dependents[need].push(step);
            }
        }
        let (group, group_last) = classes(&dependents);
        let both: Vec<_> = group.iter().zip(needs).collect();
        let (_, alike_last) = classes(&both);
        Self { dependents, group, group_last, alike_last }
    }
}

/// For each key the first and the last place of an equal one.
fn classes<K: Eq + std::hash::Hash>(keys: &[K]) -> (Vec<usize>, Vec<usize>) {
    let mut ends: HashMap<&K, (usize, usize)> = HashMap::new();
    for (place, key) in keys.iter().enumerate() {
        ends.entry(key).or_insert((place, place)).1 = place;
    }
    keys.iter().map(|key| ends.get(key).copied().unwrap_or_default()).unzip()
}

/// A rail on its way down.
#[derive(Clone, Copy)]
struct Rail<'a> {
    /// The steps that need it, ascending.
    targets: &'a [usize],
    group: usize,
    /// Whether more steps may feed it.
    shared: bool,
    /// How many do.
    sources: usize,
    /// The column of the latest step that needed it.
    latest: Option<usize>,
}

impl Rail<'_> {
    fn leads_to(&self, step: usize) -> bool {
        self.targets.binary_search(&step).is_ok()
    }

    fn ends_at(&self, step: usize) -> bool {
        self.targets.last() == Some(&step)
    }
}

/// The mark of the line above.
#[derive(Clone, Copy)]
struct Above {
    column: usize,
    /// Whether its rail begins elsewhere.
    feeds_right: bool,
}

/// A drawing under way, between two lines.
struct Layout<'a> {
    plan: &'a Plan,
    manner: Manner,
    rails: [Option<Rail<'a>>; RAILS_MAX],
    above: Option<Above>,
    lines: Vec<Vec<char>>,
    columns: usize,
    crossings: usize,
}

impl<'a> Layout<'a> {
    fn new(plan: &'a Plan, manner: Manner) -> Self {
        let lines = Vec::with_capacity(plan.group.len());
        Self { plan, manner, rails: [None; RAILS_MAX], above: None, lines, columns: 0, crossings: 0 }
    }

    fn run(mut self) -> Option<Drawing> {
        for step in 0..self.plan.group.len() {
            self.step(step)?;
        }
        let width = (2 * self.columns).saturating_sub(1);
        let lines = self.lines.iter().map(|line| line.iter().take(width).collect()).collect();
        Some(Drawing { lines, columns: self.columns, crossings: self.crossings })
    }

    fn step(&mut self, step: usize) -> Option<()> {
        let mut met: Vec<usize> = self.columns_where(|rail| rail.leads_to(step)).collect();
        let (_, mark) = (0..RAILS_MAX)
            .filter_map(|column| self.price(step, column, &met).map(|price| (price, column)))
            .min()?;
        let before = self.rails.map(|rail| rail.is_some());
        for &column in &met {
            if let Some(rail) = &mut self.rails[column] {
                rail.latest = Some(mark);
                if rail.ends_at(step) {
                    self.rails[column] = None;
                }
            }
        }
        let fed = self.feed(step, mark, &before)?;
        met.extend(fed);
        self.line(mark, &met, &before);
        self.above = Some(Above { column: mark, feeds_right: fed.is_some() });
        Some(())
    }

    /// The columns of such rails, from the left.
    fn columns_where(&self, such: impl Fn(&Rail<'_>) -> bool) -> impl Iterator<Item = usize> {
        (0..RAILS_MAX).filter(move |&column| self.rails[column].as_ref().is_some_and(&such))
    }

    /// The nearest rail right of a mark that the step may feed with others.
    fn to_join(&self, step: usize, mark: usize) -> Option<usize> {
        let group = self.plan.group[step];
        self.columns_where(|rail| rail.shared && rail.group == group).find(|&column| column > mark)
    }

    /// How badly a step that needs the rails in `needed` stands in this column; none when it would be misread there.
    fn price(&self, step: usize, column: usize, needed: &[usize]) -> Option<i32> {
        let here = self.rails[column].as_ref();
        let ends = |column: usize| self.rails[column].as_ref().is_some_and(|rail| rail.ends_at(step));
        if here.is_some_and(|rail| !rail.ends_at(step)) {
            return None;
        }
        if needed.iter().any(|&rail| !ends(rail) && rail > column) {
            return None;
        }
        let from_left = needed.iter().any(|&rail| rail < column);
        if let Some(above) = self.above.filter(|above| above.column == column) {
            let hangs = !above.feeds_right && !from_left;
            if hangs != here.is_some() {
                return None;
            }
        }
        let first = needed.iter().copied().min().unwrap_or(column).min(column);
        let last = needed.iter().copied().max().unwrap_or(column).max(column);
        let crossings = (first..=last)
            .filter(|&crossed| self.rails[crossed].is_some() && !needed.contains(&crossed))
            .count();
        let mut price = i32::try_from(3 * crossings + (last - first) + column).unwrap_or(i32::MAX);
        // A chain goes straight down; steps on one rail stand in line; a step that can share a rail does.
        if let Some(rail) = here {
            price += match (rail.targets.len(), rail.sources) {
                (1, 1) => -10,
                (1, _) => 0,
                (_, _) if self.manner.under => -10,
                (_, _) => 10,
            };
        }
        let in_line = |rail: &usize| self.rails[*rail].is_some_and(|rail| rail.latest == Some(column));
        if !self.manner.under && needed.iter().any(in_line) {
            price -= 5;
        }
        if self.to_join(step, column).is_some() {
            price -= 20;
        }
        Some(price)
    }

    /// Leads the step to what needs it: on a rail of others, on one of its own under its mark, or on one beside it that
    /// others will share. Gives the column of the rail where that is not the mark's; none when there is no room.
    fn feed(&mut self, step: usize, mark: usize, before: &[bool; RAILS_MAX]) -> Option<Option<usize>> {
        let plan = self.plan;
        if plan.dependents[step].is_empty() {
            return Some(None);
        }
        if let Some(column) = self.to_join(step, mark) {
            if let Some(rail) = &mut self.rails[column] {
                rail.sources += 1;
            }
            return Some(Some(column));
        }
        let shared = match self.manner.share {
            Share::Never => false,
            Share::Alike => plan.alike_last[step] > step,
            Share::Always => plan.group_last[step] > step,
        };
        let column = if shared { (mark + 1..RAILS_MAX).find(|&column| !before[column])? } else { mark };
        let (targets, group) = (plan.dependents[step].as_slice(), plan.group[step]);
        self.rails[column] = Some(Rail { targets, group, shared, sources: 1, latest: None });
        Some((column != mark).then_some(column))
    }

    /// Draws the line of a mark that meets these rails.
    fn line(&mut self, mark: usize, met: &[usize], before: &[bool; RAILS_MAX]) {
        let first = met.iter().copied().min().unwrap_or(mark).min(mark);
        let last = met.iter().copied().max().unwrap_or(mark).max(mark);
        let mut line = Vec::with_capacity(2 * RAILS_MAX);
        for (column, &above) in before.iter().enumerate() {
            let left = first < column && column <= last;
            let right = first <= column && column < last;
            let drawn = if column == mark {
                MARK
            } else if met.contains(&column) {
                meeting(above, self.rails[column].is_some(), left, right)
            } else if above {
                self.crossings += usize::from(left);
                '│'
            } else if left {
                '─'
            } else {
                ' '
            };
            if drawn != ' ' {
                self.columns = self.columns.max(column + 1);
            }
            line.extend([drawn, if right { '─' } else { ' ' }]);
        }
        self.lines.push(line);
    }
}

/// Where a line meets a rail that comes from above, goes on below, or both.
fn meeting(above: bool, below: bool, left: bool, right: bool) -> char {
    match (above, below, left, right) {
        (true, true, true, true) => '┼',
        (true, true, true, false) => '┤',
        (true, true, false, _) => '├',
        (true, false, true, true) => '┴',
        (true, false, true, false) => '╯',
        (true, false, false, _) => '╰',
        (false, _, true, true) => '┬',
        (false, _, _, false) => '╮',
        (false, _, false, true) => '╭',
    }
}
