//! What is on the screen: a function of the figures and of what was pressed.

use std::cmp::Ordering;

use edri::{LinkState, ManagerState, Phase};
use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::figures::{Figures, LinkFigures, ManagerFigures, NodeFigures, link_state, phase};
use crate::clients::output::{bytes, clean, micros, or_dash, span};
use crate::clients::show;

/// The columns of the managers: heading, width, which names need not use up, and whether it stands to the right.
const COLUMNS: [(&str, u16, bool); 13] = [
    ("NODE", 12, false),
    ("MANAGER", 18, false),
    ("STATE", 9, false),
    ("WORKERS", 8, true),
    ("HANDLED/S", 10, true),
    ("FAILED/S", 9, true),
    ("QUEUED", 8, true),
    ("FULL", 5, true),
    ("IN HAND", 8, true),
    ("WAIT P99", 9, true),
    ("HANDLE P50", 11, true),
    ("HANDLE P99", 11, true),
    ("RESTARTS", 9, true),
];
/// Which columns are left out first where there is no room for all.
const DISPENSABLE: [usize; 8] = [10, 3, 9, 5, 8, 7, 11, 12];
/// The widths of the columns of links, behind the one of their names, and how wide that one is.
const LINK_COLUMNS: [u16; 7] = [10, 7, 7, 9, 9, 7, 7];
const LINK_MIN: u16 = 8;
const LINK_MAX: u16 = 28;
/// Where the rates stand, by which it is sorted first.
const BY_RATE: usize = 4;

/// How the figures are shown.
pub(super) struct View {
    /// The column that it is sorted by.
    sorted: usize,
    reversed: bool,
    /// The first manager on the screen.
    top: usize,
    pub(super) paused: bool,
    /// Why the node could not be asked the last time.
    pub(super) lost: Option<String>,
    plain: bool,
}

impl View {
    pub(super) fn new(plain: bool) -> Self {
        Self { sorted: BY_RATE, reversed: false, top: 0, paused: false, lost: None, plain }
    }

    /// Takes a key; whether it asks for the end.
    pub(super) fn press(&mut self, key: KeyCode) -> bool {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Right | KeyCode::Tab => self.sorted = (self.sorted + 1) % COLUMNS.len(),
            KeyCode::Left | KeyCode::BackTab => self.sorted = (self.sorted + COLUMNS.len() - 1) % COLUMNS.len(),
            KeyCode::Down => self.top += 1,
            KeyCode::Up => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top += 10,
            KeyCode::PageUp => self.top = self.top.saturating_sub(10),
            KeyCode::Home => self.top = 0,
            _ => {}
        }
        false
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, figures: &Figures) {
        let area = frame.area();
        let nodes = u16::try_from(figures.nodes.len()).unwrap_or(u16::MAX).min(area.height / 3).max(1);
        let links = u16::try_from(figures.links.len()).unwrap_or(u16::MAX).min(area.height / 4);
        let links = if links == 0 { 0 } else { links + 2 };
        let parts = Layout::vertical([
            Constraint::Length(nodes),
            Constraint::Min(3),
            Constraint::Length(links),
            Constraint::Length(1),
        ]);
        let [head, managers, below, foot] = parts.areas(area);
        frame.render_widget(Paragraph::new(self.nodes(figures, head.width)), head);
        self.managers(frame, managers, figures);
        if links > 0 {
            self.links(frame, below, figures);
        }
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn tone(&self, colour: Color) -> Style {
        if self.plain { Style::new() } else { Style::new().fg(colour) }
    }

    fn nodes(&self, figures: &Figures, width: u16) -> Text<'static> {
        figures.nodes.iter().map(|node| self.node(node, width)).collect::<Vec<_>>().into()
    }

    /// What matters most stands first; what there is no room for is left out whole.
    fn node(&self, node: &NodeFigures, width: u16) -> Line<'static> {
        let colour = if node.phase == Phase::Running { Color::Green } else { Color::Yellow };
        let warns = |bad: bool| if bad { self.tone(Color::Red) } else { Style::new() };
        let forwarded = (node.forwarded_per_s > 0.0).then(|| format!("  {}/s forwarded", number(node.forwarded_per_s)));
        let parts = [
            Some((clean(&node.node), Style::new().add_modifier(Modifier::BOLD))),
            Some((format!(" {}", phase(node.phase)), self.tone(colour))),
            Some((format!("  {}/s handled", number(node.handled_per_s)), Style::new())),
            forwarded.map(|forwarded| (forwarded, Style::new())),
            Some((format!("  dead letters {}", node.dead_letters), warns(node.dead_letters_per_s > 0.0))),
            Some((format!("  nodes {}/{}", node.reachable, node.known), warns(node.reachable < node.known))),
            Some((format!("  queued {}", node.queued), Style::new())),
            Some((format!("  open {}", node.pending), Style::new())),
            Some((format!("  up {}", span(node.uptime_s)), Style::new())),
        ];
        let mut left = usize::from(width);
        let fits = |(text, style): (String, Style)| {
            let span = Span::styled(text, style);
            left = left.checked_sub(span.width())?;
            Some(span)
        };
        parts.into_iter().flatten().map_while(fits).collect::<Vec<_>>().into()
    }

    fn managers(&mut self, frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
        let mut managers: Vec<_> = figures.managers.iter().collect();
        managers.sort_by(|a, b| {
            let order = compare(a, b, self.sorted);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| (&a.node, &a.manager).cmp(&(&b.node, &b.manager)))
        });
        let rows = usize::from(area.height.saturating_sub(3));
        self.top = self.top.min(managers.len().saturating_sub(rows));
        let widths = widths(figures);
        let columns = self.columns(&widths, area.width, figures.nodes.len() > 1);
        let row = |cells: Vec<Cell<'static>>| {
            let kept = cells.into_iter().enumerate().filter(|(column, _)| columns.contains(column));
            Row::new(kept.map(|(_, cell)| cell))
        };
        let shown = managers.iter().skip(self.top).map(|manager| row(self.manager(manager)));
        let heading = |(column, (name, _, right)): (usize, &(&str, u16, bool))| {
            let mark = match (column == self.sorted, self.reversed) {
                (false, _) => "",
                (true, false) => "▾",
                (true, true) => "▴",
            };
            aligned(format!("{name}{mark}"), *right).style(Style::new().add_modifier(Modifier::BOLD))
        };
        let head = row(COLUMNS.iter().enumerate().map(heading).collect());
        let title = format!(" managers {} ", managers.len());
        let table = Table::new(shown, columns.iter().map(|column| Constraint::Length(widths[*column])))
            .header(head)
            .block(Block::new().borders(Borders::TOP | Borders::BOTTOM).title(title));
        frame.render_widget(table, area);
    }

    /// The columns that there is room for; the one that it is sorted by is among them.
    fn columns(&self, widths: &[u16], width: u16, several_nodes: bool) -> Vec<usize> {
        let fits = |columns: &[usize]| {
            columns.iter().map(|column| widths[*column] + 1).sum::<u16>() <= width.saturating_add(1)
        };
        // Of one node the first line tells.
        let node = (!several_nodes).then_some(0);
        let dispensable: Vec<_> = node.into_iter().chain(DISPENSABLE).filter(|column| *column != self.sorted).collect();
        let mut columns: Vec<_> = (0..COLUMNS.len()).filter(|column| !dispensable.contains(column)).collect();
        for column in dispensable.into_iter().rev() {
            columns.push(column);
            if !fits(&columns) {
                columns.pop();
            }
        }
        columns.sort_unstable();
        columns
    }

    fn manager(&self, group: &ManagerFigures) -> Vec<Cell<'static>> {
        let full = if group.places == 0 { 0.0 } else { group.queued as f64 * 100.0 / group.places as f64 };
        let colour = match group.state {
            ManagerState::Running => Color::Green,
            ManagerState::Starting | ManagerState::Draining => Color::Yellow,
            ManagerState::Stopped | ManagerState::Failed => Color::Red,
        };
        let warns = |bad: bool| if bad { self.tone(Color::Red) } else { Style::new() };
        let restarts = match group.restarts_new {
            0 => group.restarts.to_string(),
            new => format!("+{new} {}", group.restarts),
        };
        vec![
            aligned(clean(&group.node), false),
            aligned(clean(&group.manager), false),
            aligned(show::state(group.state).1.to_owned(), false).style(self.tone(colour)),
            aligned(group.workers.to_string(), true),
            aligned(number(group.handled_per_s), true),
            aligned(number(group.failed_per_s), true).style(warns(group.failed_per_s > 0.0)),
            aligned(group.queued.to_string(), true),
            aligned(format!("{full:.0}%"), true).style(warns(full >= 80.0)),
            aligned(group.in_hand.to_string(), true),
            aligned(or_dash(group.wait_p99_us.map(micros)), true),
            aligned(or_dash(group.handle_p50_us.map(micros)), true),
            aligned(or_dash(group.handle_p99_us.map(micros)), true),
            aligned(restarts, true).style(warns(group.restarts_new > 0)),
        ]
    }

    fn links(&self, frame: &mut Frame<'_>, area: Rect, figures: &Figures) {
        let link = |link: &LinkFigures| {
            let colour = match link.state {
                LinkState::Up => Color::Green,
                LinkState::Connecting => Color::Yellow,
                LinkState::Down => Color::Red,
            };
            Row::new([
                aligned(clean(&format!("{} → {}", link.node, link.peer)), false),
                aligned(link_state(link.state).to_owned(), false).style(self.tone(colour)),
                aligned(span(link.since_s), true),
                aligned(or_dash(link.round_trip_ms.map(|ms| micros(ms * 1_000.0))), true),
                aligned(format!("{}/s", bytes(link.sent_bytes_per_s as u64)), true),
                aligned(format!("{}/s", bytes(link.received_bytes_per_s as u64)), true),
                aligned(bytes(link.queued_bytes), true),
                aligned(link.resumes.to_string(), true),
            ])
        };
        let names = ["LINK", "STATE", "SINCE", "RTT", "SENT", "RECEIVED", "QUEUED", "RESUMES"];
        let heads = names.iter().enumerate().map(|(column, name)| aligned((*name).to_owned(), column > 1));
        let others: u16 = LINK_COLUMNS.iter().map(|width| width + 1).sum();
        let widths = std::iter::once(area.width.saturating_sub(others).clamp(LINK_MIN, LINK_MAX)).chain(LINK_COLUMNS);
        let table = Table::new(figures.links.iter().map(link), widths.map(Constraint::Length))
            .header(Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD)));
        frame.render_widget(table, area);
    }

    fn foot(&self) -> Line<'static> {
        if let Some(why) = &self.lost {
            return Line::styled(format!("no answer, trying again: {}", clean(why)), self.tone(Color::Red));
        }
        let paused = if self.paused { "PAUSED  " } else { "" };
        Line::raw(format!("{paused}q quits  ←→ sort  r reverse  ↑↓ scroll  p pause"))
    }
}

/// How wide the columns of the managers are: those of names no wider than their longest.
fn widths(figures: &Figures) -> [u16; COLUMNS.len()] {
    let longest =
        |name: fn(&ManagerFigures) -> &str| figures.managers.iter().map(|one| name(one).chars().count()).max();
    let fitting = |column: usize, longest: Option<usize>| {
        let (heading, most, _) = COLUMNS[column];
        // With room for the mark of what it is sorted by.
        let least = heading.len() + 1;
        u16::try_from(longest.unwrap_or(0).max(least)).unwrap_or(most).min(most)
    };
    let mut widths = COLUMNS.map(|(_, width, _)| width);
    widths[0] = fitting(0, longest(|one| &one.node));
    widths[1] = fitting(1, longest(|one| &one.manager));
    widths
}

/// The larger first; names in their order.
fn compare(a: &ManagerFigures, b: &ManagerFigures, column: usize) -> Ordering {
    let full = |group: &ManagerFigures| group.queued as f64 / group.places.max(1) as f64;
    let times = |a: Option<f64>, b: Option<f64>| b.unwrap_or(-1.0).total_cmp(&a.unwrap_or(-1.0));
    match column {
        0 => a.node.cmp(&b.node),
        1 => a.manager.cmp(&b.manager),
        2 => show::state(a.state).1.cmp(show::state(b.state).1),
        3 => b.workers.cmp(&a.workers),
        BY_RATE => b.handled_per_s.total_cmp(&a.handled_per_s),
        5 => b.failed_per_s.total_cmp(&a.failed_per_s),
        6 => b.queued.cmp(&a.queued),
        7 => full(b).total_cmp(&full(a)),
        8 => b.in_hand.cmp(&a.in_hand),
        9 => times(a.wait_p99_us, b.wait_p99_us),
        10 => times(a.handle_p50_us, b.handle_p50_us),
        11 => times(a.handle_p99_us, b.handle_p99_us),
        _ => b.restarts.cmp(&a.restarts),
    }
}

fn aligned(text: String, right: bool) -> Cell<'static> {
    let text = Text::from(text);
    Cell::from(if right { text.right_aligned() } else { text })
}

/// A rate for people.
fn number(rate: f64) -> String {
    match rate {
        r if r < 10.0 => format!("{r:.1}"),
        r if r < 100_000.0 => format!("{r:.0}"),
        r => format!("{:.0}k", r / 1_000.0),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
