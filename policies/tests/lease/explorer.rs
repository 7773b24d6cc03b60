//! Visits every state that can be reached, and checks the invariants in each.
//!
//! A state is remembered by a hash of 64 bits. Among ten million states, two share one with a chance of less than 1 in
//! 100,000, and one of them would not be visited.

use super::world::{Effect, Setting, Step, World};
use policies::lease::Count;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// What an exploration has visited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visited {
    pub(crate) states: u64,
    pub(crate) steps: u64,
    /// Steps of the longest run that was followed.
    pub(crate) depth: u64,
}

/// Sequence of steps that breaks an invariant.
pub(crate) struct Found {
    pub(crate) invariant: &'static str,
    pub(crate) steps: Vec<Step>,
    pub(crate) state: String,
}

/// What the invariants remember of a run.
pub(crate) trait Monitor: Clone + Hash {
    /// Looks at a step that has led to `world`; returns the invariant that it breaks.
    fn look<C: Count + Clone + Hash + Eq>(
        &mut self,
        setting: &Setting<C>,
        effect: Effect,
        world: &World<C>,
    ) -> Result<(), &'static str>;
}

struct Run {
    step: Step,
    before: Option<Rc<Run>>,
}

/// State to go on from: the world, what the invariants remember, the steps that led there and their number.
type Open<C, M> = (World<C>, M, Option<Rc<Run>>, u64);

/// Explores all runs of a setting, depth first. Returns the first run that breaks an invariant.
pub(crate) fn explore<C: Count + Clone + Hash + Eq, M: Monitor>(
    setting: &Setting<C>,
    monitor: M,
) -> Result<Visited, Found> {
    let mut seen = HashSet::new();
    let mut visited = Visited::default();
    let mut open: Vec<Open<C, M>> = vec![(World::new(setting), monitor, None, 0)];
    while let Some((world, monitor, run, depth)) = open.pop() {
        visited.states += 1;
        visited.depth = visited.depth.max(depth);
        for step in world.steps(setting) {
            visited.steps += 1;
            let (mut world, mut monitor) = (world.clone(), monitor.clone());
            let effect = world.take(setting, step);
            let run = Some(Rc::new(Run {
                step,
                before: run.clone(),
            }));
            if let Err(invariant) = monitor.look(setting, effect, &world) {
                return Err(Found {
                    invariant,
                    steps: steps(run),
                    state: format!("{world:?}"),
                });
            }
            let mut hasher = DefaultHasher::new();
            (&world, &monitor).hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                open.push((world, monitor, run, depth + 1));
            }
        }
    }
    Ok(visited)
}

fn steps(run: Option<Rc<Run>>) -> Vec<Step> {
    let mut steps = vec![];
    let mut run = run;
    while let Some(last) = run {
        steps.push(last.step);
        run = last.before.clone();
    }
    steps.reverse();
    steps
}
