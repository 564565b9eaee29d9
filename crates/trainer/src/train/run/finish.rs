//! After training: the best checkpoint, its report, the sample report, the bundle.

use std::{collections::HashMap, fs};

use super::{Run, enter};
use crate::{
    domain::{
        checkpoint::Metrics,
        file::Split,
        job::Phase,
        progress::Progress,
        recipe::Task,
        report::{Report, Scores},
    },
    process::{device, error::TrainError, protocol::Reporter},
    train::{
        eval::{
            evaluation, forgetting,
            metrics::{EvalPoint, OutputDecoding, ReportContext, Scored, calibration},
            sample_report,
        },
        input::{inputs::Inputs, preparation::Preparation},
        output::{bundle::Bundle, export},
    },
};

/// The report, in the job folder.
const REPORT: &str = "report.json";

impl Run<'_> {
    /// Puts the best tensors in place, and saves them as the run's result.
    pub(super) fn select(
        &mut self,
        reporter: &mut Reporter,
    ) -> Result<Option<Metrics>, TrainError> {
        if !self.counters.finished {
            self.saver
                .finish(&mut self.network, &mut self.counters, reporter)?;
        }
        if self.data.interrupt.requested() {
            return Ok(None);
        }
        let best = self.counters.best.as_ref().map(Metrics::from);
        best.map(Some).ok_or_else(|| {
            TrainError::Plan(
                "`recipe.n_epochs` is 0, so there is nothing to select; give at least 1".to_owned(),
            )
        })
    }

    /// Measures the best tensors and writes the report. How outputs are decoded is fitted on the
    /// split that selected the checkpoint, never on the test split.
    pub(super) fn report(
        &mut self,
        inputs: &Inputs,
        best: Metrics,
        reporter: &mut Reporter,
    ) -> Result<(Report, OutputDecoding), TrainError> {
        enter(Phase::Evaluating, reporter);
        let (samples, recipe) = (self.data.samples, self.recipe());
        let score = |members: &[usize]| {
            evaluation::score(inputs, &self.network, (samples, recipe), members)
        };
        let validation = score(&samples.validation)?;
        let decoding = match &validation {
            Scored::SingleLabel(scored) => OutputDecoding::Temperature(calibration::fit(scored)),
            Scored::MultiLabel(scored) => OutputDecoding::Thresholds(scored.thresholds()),
            Scored::Regression(_) => OutputDecoding::Plain,
        };
        let (split, members) = samples.report_split();
        let reported = match split {
            Split::Validation => None,
            _ => Some(score(members)?),
        };
        self.report_reduced_size(inputs, reporter);
        let context = ReportContext {
            classes: &samples.classes,
            decoding: &decoding,
            majority_label: samples.majority_label(),
            mean: samples.scale().mean,
        };
        let point = EvalPoint {
            split,
            step: best.step,
            epoch: best.epoch,
        };
        let reported = reported.as_ref().unwrap_or(&validation);
        let mut report = reported.report(&context, point);
        if let Scores::SingleLabelClassification(scores) = &mut report.scores {
            scores.transferability = self.counters.transferability;
        }
        if let (Some(inherited), Some(before)) = (&recipe.inherited, &self.counters.at_start)
            && inherited.keeps_head()
        {
            forgetting::compare(&mut report.scores, inherited, before, &validation);
        }
        let text =
            serde_json::to_vec_pretty(&report).expect("a report is plain data: this is a bug");
        let path = self.folder.join(REPORT);
        fs::write(&path, text)
            .map_err(TrainError::io(format!("cannot write {}", path.display())))?;
        Ok((report, decoding))
    }

    /// Writes the sample report.
    pub(super) fn report_samples(
        &self,
        inputs: &Inputs,
        decoding: &OutputDecoding,
        originals: &HashMap<usize, usize>,
    ) -> Result<bool, TrainError> {
        let data = (self.data.samples, self.recipe());
        let (read, decoded) = ((&self.network, inputs), (decoding, originals));
        let interrupt = self.data.interrupt;
        let written = sample_report::write(self.folder, data, read, decoded, interrupt)?;
        Ok(written.is_some())
    }

    /// Writes the bundle, and reports what the run cost.
    pub(super) fn export(
        &mut self,
        best: Metrics,
        report: &Report,
        decoding: &OutputDecoding,
        reporter: &mut Reporter,
    ) -> Result<(), TrainError> {
        enter(Phase::Exporting, reporter);
        let Preparation {
            plan,
            samples,
            device,
            ..
        } = self.data;
        if plan.recipe.task == Task::Regression {
            // Training sees deviations; from here on outputs are in the target's unit.
            let scale = samples.scale();
            self.network.rescale_outputs(scale.std, scale.mean);
        }
        let bundle = Bundle {
            plan,
            samples,
            network: &self.network,
            best,
            report,
            decoding,
            device,
        };
        export::export(self.folder, &bundle)?;
        reporter.usage.peak_bytes = device::peak_bytes(device);
        reporter.send(&Progress::Used(reporter.usage));
        reporter.send(&Progress::Finished {
            best_step: best.step,
            stopped_early: self.counters.stopped_early,
        });
        Ok(())
    }
}
