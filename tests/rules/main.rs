//! What is written down holds: alerts and dashboards ask for metrics that are there, each command and example in a document
//! works, packages install what they say, and the detector's verdicts on recorded traces are right.

#[path = "../docs_support/mod.rs"]
mod docs_support;
#[path = "../heap_support/mod.rs"]
mod heap_support;
#[path = "../docs_support/place.rs"]
mod place;
#[path = "../alerts/queries.rs"]
mod queries;
#[path = "../alerts/rule_files.rs"]
mod rule_files;
#[path = "../support/mod.rs"]
mod support;

mod alerts_contract;
mod alerts_dashboards;
mod alerts_end_to_end;
mod alerts_rules;
mod architecture;
mod deploy_debian;
mod deploy_docker;
mod deploy_kubernetes;
mod deploy_licences;
mod deploy_npm;
mod deploy_release;
mod deploy_workflows;
mod detection_properties;
mod detection_slice;
mod docs_commands;
mod docs_examples;
mod docs_links;
mod policy_docs;
