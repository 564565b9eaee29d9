//! Failures of queues elsewhere, injected into real processes. Names begin with the failure's
//! number in docs/failures.md, where there is one.

mod admission;
mod budgets;
mod cancel;
mod disk;
mod durable;
mod fairness;
mod killed;
mod leases;
mod notify;
mod outage;
mod pause;
mod processes;
mod shutdown;
mod stop;
mod table;
mod watchdog;
mod zombie;
