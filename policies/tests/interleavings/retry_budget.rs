//! Checks that concurrent withdrawals and earnings of one budget have the effect of some sequence: the budget is never
//! overdrawn, no earning is lost, and the floor is paid once.

use super::{at, explore_orders};
use policies::retry::{RetryBudget, RetryBudgetSettings};
use policies::{Moment, Ratio};

/// Returns a budget with this many retries left at second zero.
fn holding(retries: u64, floor: f64) -> RetryBudget {
    let share = Ratio::new(0.5).unwrap();
    let budget = RetryBudget::new(RetryBudgetSettings { share, floor });
    let spent = (retries..RetryBudget::CAP).all(|_| budget.withdraw(Moment::ZERO));
    assert!(spent);
    budget
}

#[test]
fn withdrawals_never_overdraw() {
    explore_orders::<RetryBudget, _>(
        "retry budget: three withdrawals of two",
        || holding(2, 0.0),
        &[
            |budget| u64::from(budget.withdraw(at(0))),
            |budget| u64::from(budget.withdraw(at(0))),
            |budget| u64::from(budget.withdraw(at(0))),
        ],
        |budget| budget.balance(at(0)),
    );
}

#[test]
fn earnings_beside_a_withdrawal_are_kept() {
    explore_orders::<RetryBudget, _>(
        "retry budget: two first attempts beside a withdrawal",
        || holding(0, 0.0),
        &[
            |budget| {
                budget.first_attempt(at(0));
                0
            },
            |budget| {
                budget.first_attempt(at(0));
                0
            },
            |budget| u64::from(budget.withdraw(at(0))),
        ],
        |budget| budget.balance(at(0)),
    );
}

#[test]
fn the_floor_is_paid_once() {
    explore_orders::<RetryBudget, _>(
        "retry budget: withdrawals at different times",
        || holding(0, 1.0),
        &[
            |budget| u64::from(budget.withdraw(at(1_000))),
            |budget| u64::from(budget.withdraw(at(2_000))),
            |budget| u64::from(budget.withdraw(at(2_000))),
        ],
        |budget| budget.balance(at(3_000)),
    );
}
