//! The terminal while it is ours: set up, read, and given back however the command ends.

use std::io::{Stdout, stdout};
use std::sync::Once;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc;

/// What somebody did at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressed {
    Key(KeyCode),
    Resize,
    Interrupt,
}

/// How many keys may wait.
const KEYS: usize = 64;
/// How long the reader waits for a key before it looks whether anybody is there.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    pressed: mpsc::Receiver<Pressed>,
}

impl Screen {
    pub(super) fn begin() -> std::io::Result<Self> {
        restore_on_panic();
        enable_raw_mode()?;
        // From here on the terminal is given back when this fails.
        let begin = || {
            execute!(stdout(), EnterAlternateScreen)?;
            let mut terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
            terminal.hide_cursor()?;
            Ok(terminal)
        };
        match begin() {
            Ok(terminal) => Ok(Self { terminal, pressed: read_keys() }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> std::io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// What comes next; `None` once the terminal is gone. Cancel safe.
    pub(super) async fn pressed(&mut self) -> Option<Pressed> {
        self.pressed.recv().await
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back; done twice, it harms nobody.
fn restore() {
    // There is nothing to be done about a terminal that does not want it.
    drop(disable_raw_mode());
    drop(execute!(stdout(), LeaveAlternateScreen, Show));
}

/// A panic's message is for the screen that was there before.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// Reads the terminal on a thread of its own, as that blocks.
fn read_keys() -> mpsc::Receiver<Pressed> {
    let (tell, pressed) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while !tell.is_closed() {
            match event::poll(LOOK) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) => return,
            }
            let Ok(event) = event::read() else { return };
            let pressed = match event {
                Event::Key(key) if key.kind == KeyEventKind::Release => continue,
                Event::Key(key) if key.modifiers.contains(KeyModifiers::CONTROL) => match key.code {
                    KeyCode::Char('c' | 'd') => Pressed::Interrupt,
                    _ => continue,
                },
                Event::Key(key) => Pressed::Key(key.code),
                Event::Resize(..) => Pressed::Resize,
                _ => continue,
            };
            if tell.blocking_send(pressed).is_err() {
                return;
            }
        }
    });
    pressed
}
