//! An engine that sleeps instead of computing, so that a test or a bench sees everything around it.

use std::{sync::mpsc, thread, time::Duration};

use joust_core::Finish;

use crate::{Engine, Error, Result, SampleRequest, Sampled, actor::Job};

/// Starts an engine that answers each request after `pause` with answers of full length, and scores nothing.
///
/// # Errors
/// [`Error::Failed`] if the system gives no thread.
pub fn sleeping(pause: Duration) -> Result<Engine> {
    let (sender, receiver) = mpsc::channel::<Job>();
    let work = move || {
        for job in receiver {
            let Job::Sample { request, answers } = job else { continue };
            thread::sleep(pause);
            for sampled in made_up(&request) {
                // Nobody listening means nobody needs it.
                let _ = answers.send(Ok(sampled));
            }
        }
    };
    let started = thread::Builder::new().name("joust-sleeper".into()).spawn(work);
    started.map_err(|error| Error::Failed(error.to_string()))?;
    Ok(Engine(sender))
}

fn made_up(request: &SampleRequest) -> Vec<Sampled> {
    let (length, model) = (request.params.max_new_tokens, request.source.id().clone());
    let answer = |(index, sample_index): (usize, u32)| Sampled {
        prompt: index,
        sample_index,
        token_ids: (0..length as u32).map(|token| 5 + (token * 7 + sample_index) % 200).collect(),
        logprobs: vec![-1.0; length],
        finish: Finish::Length,
        model: model.clone(),
    };
    let each = request.prompts.iter().enumerate().flat_map(|(index, prompt)| {
        let samples: Vec<u32> = prompt.samples.clone().collect();
        samples.into_iter().map(move |sample| (index, sample))
    });
    each.map(answer).collect()
}
