//! What belongs to a command line beside itself: completions for shells, and manual pages.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::Cli;
use crate::exit::Problem;

/// `colophon completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

impl Completions {
    /// The script, which defines what the shell asks for.
    pub fn script(&self) -> String {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "colophon", &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

/// `colophon man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The folder; it is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
}

impl Man {
    /// Writes a page for the program and one for each of its commands, and says so.
    pub fn write(&self) -> Result<String, Problem> {
        let folder = self.out.display();
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let written =
            std::fs::create_dir_all(&self.out).and_then(|()| write_pages(&program, &self.out));
        match written {
            Ok(()) => Ok(format!("the manual pages are in {folder}\n")),
            Err(error) => Err(Problem::usage(format!("{folder} cannot be written to: {error}"))),
        }
    }
}

fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(folder.join(format!("{name}.1")), page(command)?)?;
    command.get_subcommands().try_for_each(|command| write_pages(command, folder))
}

fn page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    Page::new(command.clone()).render(&mut page)?;
    let page = String::from_utf8_lossy(&page).into_owned();
    // What follows the options in `--help` is a table of our own, whose lines must stay lines.
    let Some((before, after)) = page.split_once("\n.SH EXTRA\n") else { return Ok(page) };
    let (table, rest) = after.split_once("\n.SH ").unwrap_or((after, ""));
    Ok(format!("{before}\n.SH NOTES\n.nf\n{table}\n.fi\n.SH {rest}"))
}
