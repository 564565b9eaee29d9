//! After training: the best checkpoint, its report, the sample report, the bundle.

use super::Run;
use crate::{
    domain::{
        checkpoint::Metrics,
        file::Split,
        job::Phase,
        progress::Progress,
        recipe::Task,
        report::{Report, Scores},
    },
    process::{device, error::TrainError, json},
    train::{
        eval::{
            evaluation, forgetting,
            metrics::{OutputDecoding, ReportContext, Scored, calibration},
        },
        input::inputs::Inputs,
        output::{bundle::Bundle, export},
    },
};

/// The report, in the job folder.
const REPORT: &str = "report.json";

impl Run<'_> {
    /// Puts the best tensors in place, and saves them as the run's result.
    pub(super) fn select(&mut self) -> Result<Metrics, TrainError> {
        if !self.counters.finished {
            let (network, counters) = (&mut self.network, &mut self.counters);
            self.saver.finish(network, counters, self.reporter)?;
        }
        self.data.interrupt.check()?;
        let best = self.counters.best.as_ref().map(Metrics::from);
        best.ok_or_else(|| {
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
    ) -> Result<(Report, OutputDecoding), TrainError> {
        self.enter(Phase::Evaluating);
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
        self.report_reduced_size(inputs);
        let context = ReportContext {
            classes: &samples.classes,
            decoding: &decoding,
            majority_label: samples.majority_label(),
            mean: samples.scale().mean,
        };
        let mut report = Report {
            split,
            samples: members.len() as u64,
            step: best.step,
            epoch: best.epoch,
            scores: reported.as_ref().unwrap_or(&validation).scores(&context),
        };
        if let Scores::SingleLabelClassification(scores) = &mut report.scores {
            scores.transferability = self.counters.transferability;
        }
        if let (Some(inherited), Some(before)) = (&recipe.inherited, &self.counters.at_start)
            && inherited.keeps_head()
        {
            forgetting::compare(&mut report.scores, inherited, before, &validation);
        }
        json::write(&self.folder.join(REPORT), &report)?;
        Ok((report, decoding))
    }

    /// Writes the bundle, and reports what the run cost.
    pub(super) fn export(
        &mut self,
        best: Metrics,
        report: &Report,
        decoding: &OutputDecoding,
    ) -> Result<(), TrainError> {
        self.enter(Phase::Exporting);
        if self.recipe().task == Task::Regression {
            // Training sees deviations; from here on outputs are in the target's unit.
            let scale = self.data.samples.scale();
            self.network.rescale_outputs(scale.std, scale.mean);
        }
        let bundle = Bundle {
            run: self.data,
            network: &self.network,
            best,
            report,
            decoding,
        };
        export::export(self.folder, &bundle)?;
        self.reporter.usage.peak_bytes = device::peak_bytes(self.data.device);
        self.reporter.send(&Progress::Used(self.reporter.usage));
        self.reporter.send(&Progress::Finished {
            best_step: best.step,
            stopped_early: self.counters.stopped_early,
        });
        Ok(())
    }
}
