//! `colophond config check`: everything that is wrong with a configuration, each with its line and
//! key, without connecting to anything. One section's error hides no other section's.

use std::{collections::HashMap, fmt, sync::Arc};

use colophon_domain::{Failure, RegistryHost, RuleConfig, TagRules};
use colophon_registry::{Registries, RegistryConfig};
use colophon_server::{CallerConfig, Callers};
use colophon_vault::{CredentialRule, Vault, VaultConfig};
use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use crate::{
    config::{
        Config, DatabaseSection, LogSection, RegistrySection, ReloadSection, ServerSection, line_of,
    },
    live::Anonymous,
    telemetry::TelemetrySection,
};

/// The sections that there are, in the order in which a refusal names them.
pub(crate) const SECTIONS: &[&str] = &[
    "server",
    "database",
    "vault",
    "registry",
    "repository",
    "caller",
    "worker",
    "retention",
    "upload",
    "reload",
    "log",
    "telemetry",
];

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    line: usize,
    /// The key, for example `caller[1].token_sha256`; empty where the text is no TOML at all.
    key: String,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.what),
            key => write!(f, "line {}: {key}: {}", self.line, self.what),
        }
    }
}

/// What is wrong with a text, in the order of its lines.
pub(crate) fn faults(text: &str) -> Vec<Fault> {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            let what = error.message().to_owned();
            return vec![Fault { line: line_of(text, offset), key: String::new(), what }];
        }
    };
    let mut check = Check { text, table: table.get_ref(), faults: Vec::new() };
    check.sections();
    let mut faults = check.faults;
    faults.sort_by_key(|fault| fault.line);
    faults
}

struct Check<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn sections(&mut self) {
        for (name, _) in self.table {
            if !SECTIONS.contains(&name.get_ref().as_ref()) {
                let known: Vec<String> = SECTIONS.iter().map(|name| format!("`{name}`")).collect();
                self.faults.push(Fault {
                    line: line_of(self.text, name.span().start),
                    key: name.get_ref().to_string(),
                    what: format!(
                        "unknown field `{}`, expected one of {}",
                        name.get_ref(),
                        known.join(", ")
                    ),
                });
            }
        }
        self.section::<ServerSection>("server");
        if let Some(reload) = self.section::<ReloadSection>("reload") {
            self.failed("", reload.check());
        }
        if let Some(log) = self.section::<LogSection>("log") {
            self.failed("", log.check());
        }
        if let Some(database) = self.section::<DatabaseSection>("database") {
            self.failed("", database.check());
        }
        if let Some(worker) = self.section::<colophon_engine::WorkSettings>("worker") {
            self.failed("", worker.check());
        }
        if let Some(retention) = self.section::<colophon_engine::RetentionSettings>("retention") {
            self.failed("", retention.check());
        }
        if let Some(upload) = self.section::<colophon_engine::UploadLimits>("upload") {
            self.failed("", upload.check());
        }
        if let Some(telemetry) = self.section::<TelemetrySection>("telemetry") {
            self.failed("", telemetry.check());
        }
        let vault = self.section::<VaultConfig>("vault");
        let registries = self.registry_sections();
        self.registries(vault, &registries);
        self.rules();
        self.callers();
    }

    /// Reads one section on its own.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.table.get(name)?;
        self.read(name, value.clone())
    }

    /// Reads an array of tables, element by element; those that cannot be read are missing.
    fn sections_of<T: DeserializeOwned>(&mut self, name: &str) -> Vec<(usize, T)> {
        let Some(value) = self.table.get(name) else { return Vec::new() };
        self.elements(name, value.clone())
    }

    fn elements<T: DeserializeOwned>(
        &mut self,
        key: &str,
        value: Spanned<DeValue<'_>>,
    ) -> Vec<(usize, T)> {
        let DeValue::Array(array) = value.into_inner() else {
            self.fault(key, format!("must be a list of tables, [[{key}]]"));
            return Vec::new();
        };
        let mut read = Vec::new();
        for (index, element) in array.into_iter().enumerate() {
            if let Some(element) = self.read(&format!("{key}[{index}]"), element) {
                read.push((index, element));
            }
        }
        read
    }

    /// The registries, and apart from each its credentials, so that an error has its own line.
    fn registry_sections(&mut self) -> Vec<(usize, RegistrySection)> {
        let Some(value) = self.table.get("registry").cloned() else { return Vec::new() };
        let DeValue::Array(array) = value.into_inner() else {
            self.fault("registry", "must be a list of tables, [[registry]]".to_owned());
            return Vec::new();
        };
        let mut read = Vec::new();
        for (index, element) in array.into_iter().enumerate() {
            let (key, span) = (format!("registry[{index}]"), element.span());
            let mut value = element.into_inner();
            let rules = match &mut value {
                DeValue::Table(table) => table.remove("credentials"),
                _ => None,
            };
            let rules = rules.map(|rules| self.elements(&format!("{key}.credentials"), rules));
            let credentials: Vec<CredentialRule> =
                rules.unwrap_or_default().into_iter().map(|(_, rule)| rule).collect();
            if let Some(config) = self.read(&key, Spanned::new(span, value)) {
                read.push((index, RegistrySection { config, credentials }));
            }
        }
        read
    }

    fn read<T: DeserializeOwned>(&mut self, key: &str, value: Spanned<DeValue<'_>>) -> Option<T> {
        let begin = value.span().start;
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(section) => Some(section),
            Err(error) => {
                // Its message does not quote the line, which may hold a password.
                let offset = error.span().map_or(begin, |span| span.start);
                let line = line_of(self.text, offset);
                let what = error.message().to_owned();
                self.faults.push(Fault { line, key: key.to_owned(), what });
                None
            }
        }
    }

    /// What the registries and Vault find wrong when they are set up.
    fn registries(&mut self, vault: Option<VaultConfig>, registries: &[(usize, RegistrySection)]) {
        let (mut hosts, mut rules) = (HashMap::new(), HashMap::new());
        for (index, section) in registries {
            let key = format!("registry[{index}]");
            let host = section.config.host.clone();
            if let Some(first) = hosts.insert(host.clone(), *index) {
                let what =
                    format!("the registry {host} is configured twice, by registry[{first}], too");
                self.fault(&key, what);
                continue;
            }
            let config: RegistryConfig = section.config.clone();
            self.failed_within(&key, Registries::new(vec![config], Arc::new(Anonymous)));
            if vault.is_none()
                && self.table.get("vault").is_none()
                && !section.credentials.is_empty()
            {
                let what = "there is no [vault] to read credentials from";
                self.fault(&format!("{key}.credentials"), what.to_owned());
            }
            rules.insert(host, section.credentials.clone());
        }
        if let Some(vault) = vault {
            self.failed("", Vault::new(vault, rules));
        }
    }

    /// The hosts that are named, those of registries that cannot be read otherwise, too; `None` if
    /// one of them is no host.
    fn hosts(&self) -> Option<Vec<RegistryHost>> {
        let Some(value) = self.table.get("registry") else { return Some(Vec::new()) };
        let registries = value.get_ref().as_array()?.iter();
        registries.map(|one| one.get_ref().get("host")?.get_ref().as_str()?.parse().ok()).collect()
    }

    fn rules(&mut self) {
        let hosts = self.hosts();
        for (index, rule) in self.sections_of::<RuleConfig>("repository") {
            let (host, before) = (rule.pattern.registry(), self.faults.len());
            self.failed_at("repository", index, TagRules::new(vec![rule]));
            // One fault of a pattern is enough.
            if self.faults.len() == before
                && let (Some(host), Some(hosts)) = (host, &hosts)
                && !hosts.contains(&host)
            {
                let what = Config::no_such_registry(&host);
                self.fault(&format!("repository[{index}].pattern"), what);
            }
        }
    }

    fn callers(&mut self) {
        let callers = self.sections_of::<CallerConfig>("caller");
        let before = self.faults.len();
        for (index, caller) in &callers {
            self.failed_at("caller", *index, Callers::new(vec![caller.clone()]));
        }
        if self.faults.len() == before {
            // What two of them have in common.
            self.failed("", Callers::new(callers.into_iter().map(|(_, caller)| caller).collect()));
        }
    }

    /// A failure whose field is the whole key.
    fn failed<T>(&mut self, key: &str, result: colophon_domain::Result<T>) {
        if let Err(failure) = result {
            let key = failure.field_name().unwrap_or(key).to_owned();
            self.fault(&key, said(&failure));
        }
    }

    /// A failure of a list of one, whose field begins with `name[0]`.
    fn failed_at<T>(&mut self, name: &str, index: usize, result: colophon_domain::Result<T>) {
        if let Err(failure) = result {
            let field = failure.field_name().unwrap_or_default();
            let rest = field.strip_prefix(&format!("{name}[0]")).unwrap_or_default();
            self.fault(&format!("{name}[{index}]{rest}"), said(&failure));
        }
    }

    /// A failure of one element, whose field begins with the name of the list.
    fn failed_within<T>(&mut self, key: &str, result: colophon_domain::Result<T>) {
        if let Err(failure) = result {
            let field = failure.field_name().and_then(|field| field.split_once('.'));
            let key = field.map_or_else(|| key.to_owned(), |(_, rest)| format!("{key}.{rest}"));
            self.fault(&key, said(&failure));
        }
    }

    fn fault(&mut self, key: &str, what: String) {
        let line = line_of(self.text, self.offset_of(key));
        self.faults.push(Fault { line, key: key.to_owned(), what });
    }

    /// Where a key is, or as much of it as there is.
    fn offset_of(&self, key: &str) -> usize {
        let (mut offset, mut table) = (0, Some(self.table));
        for part in key.split('.') {
            let (name, index) = match part.split_once('[') {
                Some((name, index)) => (name, index.trim_end_matches(']').parse().ok()),
                None => (part, None),
            };
            let Some(mut value) = table.and_then(|table| table.get(name)) else { break };
            if let Some(index) = index
                && let Some(element) =
                    value.get_ref().as_array().and_then(|all| all.get::<usize>(index))
            {
                value = element;
            }
            offset = value.span().start;
            table = value.get_ref().as_table();
        }
        offset
    }
}

fn said(failure: &Failure) -> String {
    failure.explained()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said_of(text: &str) -> Vec<String> {
        faults(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_section_says_what_is_wrong_with_it() {
        let text = "\
[server]
port = 1
[worker]
concurrency = 0
[retention]
finished_jobs = '1m'
[upload]
idle_timeout = '1s'
[[registry]]
host = 'ghcr.io'
plain_http = true
insecure_skip_verify = true
[[registry]]
host = 'ghcr.io'
[[repository]]
pattern = 'docker.io/a/*'
[[caller]]
name = 'ci'
token_sha256 = 'abc'
grants = []
[nothing]
";
        let said = said_of(text);
        for (line, key) in [
            (2, "server"),
            (4, "worker.concurrency"),
            (6, "retention.finished_jobs"),
            (8, "upload.idle_timeout"),
            (12, "registry[0].insecure_skip_verify"),
            (13, "registry[1]"),
            (16, "repository[0].pattern"),
            (19, "caller[0].token_sha256"),
            (21, "nothing"),
        ] {
            let begin = format!("line {line}: {key}: ");
            assert!(said.iter().any(|said| said.starts_with(&begin)), "{begin}: {said:#?}");
        }
        assert_eq!(said.len(), 9, "{said:#?}");
    }

    #[test]
    fn what_the_start_would_refuse_is_said() {
        let text = "\
[database]
max_connections = 0
[reload]
watch_interval = '0s'
[log]
filter = 'info,colophon=loud'
[telemetry]
otlp_endpoint = 'collector:4317'
";
        let said = said_of(text);
        let keys = [
            "line 2: database.max_connections: ",
            "line 4: reload.watch_interval: ",
            "line 6: log.filter: ",
            "line 8: telemetry.otlp_endpoint: ",
        ];
        assert_eq!(said.len(), keys.len(), "{said:#?}");
        for (said, key) in said.iter().zip(keys) {
            assert!(said.starts_with(key), "{said}");
        }
        // Each alone is refused at the start, too.
        for section in text.split_inclusive("\n[").map(|part| part.trim_matches(['[', '\n'])) {
            assert!(Config::parse(&format!("[{section}")).is_err(), "{section}");
        }
        let said = said_of("[telemetry]\nservice_name = 'a'\nsample_ratio = 2.0");
        assert!(said[0].starts_with("line 3: telemetry.sample_ratio: "), "{said:#?}");
    }

    #[test]
    fn a_registry_that_cannot_be_read_makes_its_rules_no_fault() {
        let said = |host: &str| {
            said_of(&format!(
                "[[registry]]\nhost = {host}\nplain = 1\n[[registry]]\nhost = 'docker.io'\n\
                 [[repository]]\npattern = 'ghcr.io/a/*'\n[[repository]]\npattern = 'quay.io/*'\n"
            ))
        };
        let typing = said("'ghcr.io'");
        assert_eq!(typing.len(), 2, "{typing:#?}");
        assert!(typing[0].contains("plain") && typing[1].contains("quay.io"), "{typing:#?}");
        // Nobody knows which host is meant.
        assert_eq!(said("'ghcr io'").len(), 1);
    }

    #[test]
    fn no_line_is_quoted() {
        let text = "[database]\nurl = 'postgres://u:hunter2@h/d'\nurls = 1\n[vault";
        let said = said_of(text).join("\n");
        assert!(said.contains("line 4") && !said.contains("hunter2"), "{said}");
        let said = said_of("[database]\nurl = 'hunter2 is no address'\n").join("\n");
        assert!(said.contains("database.url") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn the_sections_are_those_that_the_service_reads() {
        let error = format!("{:#}", Config::parse("bogus = 1").err().unwrap());
        let named: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(named, SECTIONS);
        assert!(said_of("bogus = 1")[0].contains(error.split_once("unknown").unwrap().1));
    }
}
