//! The nouns that the service and its trainer share. Plain data and pure functions: no I/O, no SQL,
//! no torch.
//!
//! The modules are in reading order: each uses only those above it.

// Bounds, and sizes that several packages agree on.
pub mod limits;

// A problem in what a user sent.
pub mod problem;

// The codes of problems in requests.
pub mod codes;

// Enums that are words in JSON, SQL and on the command line.
pub mod words;

// The formats that models are exported in.
pub mod export;

// Typed ids.
pub mod id;

// Lists of hosts that an operator allows.
pub mod hosts;

// What webhooks are sent for.
pub mod webhook;

// `"auto"` and `"none"`.
pub mod auto;

// Roles of API keys.
pub mod role;

// How one value of a request is read, and its schema.
pub mod rules;

// How an object is read, with all its problems at once.
pub mod fields;

// How the options of a request are declared.
pub mod options;

// Pre-trained networks and their layers.
pub mod base_model;

// What the files of a repository say of a model.
pub mod repository;

// What a network reads, by modality.
pub mod input;

// Random changes of training images.
pub mod augmentation;

// Every choice of one training.
pub mod recipe;

// The layers that a recipe makes of a base model's.
pub mod layers;

// Uploaded files, and what validation found in them.
pub mod file;

// Predictions and flags of single samples.
pub mod sample_report;

// Where the samples and thumbnails of a data set are stored.
pub mod sample_index;

// Changes that make a data set of another.
pub mod corrections;

// The model or checkpoint that a job starts from.
pub mod parent;

// What a user asks for.
pub mod request;

// The states of a job and the legal moves between them.
pub mod job;

// Saved states of a training.
pub mod checkpoint;

// Objects of the store, as rows describe them.
pub mod object;

// What child processes report.
pub mod progress;

// How much memory and time a job will take.
pub mod estimate;

// What a recipe means for a base model and a data set.
pub mod job_plan;

// From a request to a recipe.
pub mod resolve;

// Which base model suits a data set.
pub mod ranking;

// What child processes are given.
pub mod work;

// The evaluation report of a model.
pub mod report;

// A fine-tuned model as a repository of a hub.
pub mod publish;

#[cfg(test)]
mod test_data;
