//! Closed choices: every value by name, the unspecified one refused.

use joust_core::{DropReason, ExampleSource, Finish, JudgementStatus, Player, Purpose};

use crate::{Error, Result, common::v1 as wire};

fn unspecified() -> Error {
    Error::value("", "unspecified", "one of its values")
}

impl From<Purpose> for wire::Purpose {
    fn from(value: Purpose) -> Self {
        match value {
            Purpose::Train => Self::Train,
            Purpose::Eval => Self::Eval,
            Purpose::ByHand => Self::ByHand,
        }
    }
}

impl TryFrom<wire::Purpose> for Purpose {
    type Error = Error;
    fn try_from(value: wire::Purpose) -> Result<Self> {
        match value {
            wire::Purpose::Unspecified => Err(unspecified()),
            wire::Purpose::Train => Ok(Self::Train),
            wire::Purpose::Eval => Ok(Self::Eval),
            wire::Purpose::ByHand => Ok(Self::ByHand),
        }
    }
}

impl From<Player> for wire::Player {
    fn from(value: Player) -> Self {
        match value {
            Player::Policy => Self::Policy,
            Player::Reference => Self::Reference,
            Player::Mixture => Self::Mixture,
            Player::Ema => Self::Ema,
            Player::Past => Self::Past,
            Player::Styled => Self::Styled,
            Player::Revised => Self::Revised,
        }
    }
}

impl TryFrom<wire::Player> for Player {
    type Error = Error;
    fn try_from(value: wire::Player) -> Result<Self> {
        match value {
            wire::Player::Unspecified => Err(unspecified()),
            wire::Player::Policy => Ok(Self::Policy),
            wire::Player::Reference => Ok(Self::Reference),
            wire::Player::Mixture => Ok(Self::Mixture),
            wire::Player::Ema => Ok(Self::Ema),
            wire::Player::Past => Ok(Self::Past),
            wire::Player::Styled => Ok(Self::Styled),
            wire::Player::Revised => Ok(Self::Revised),
        }
    }
}

impl From<Finish> for wire::Finish {
    fn from(value: Finish) -> Self {
        match value {
            Finish::Eos => Self::Eos,
            Finish::Length => Self::Length,
        }
    }
}

impl TryFrom<wire::Finish> for Finish {
    type Error = Error;
    fn try_from(value: wire::Finish) -> Result<Self> {
        match value {
            wire::Finish::Unspecified => Err(unspecified()),
            wire::Finish::Eos => Ok(Self::Eos),
            wire::Finish::Length => Ok(Self::Length),
        }
    }
}

impl From<JudgementStatus> for wire::JudgementStatus {
    fn from(value: JudgementStatus) -> Self {
        match value {
            JudgementStatus::Ok => Self::Ok,
            JudgementStatus::ParseFailed => Self::ParseFailed,
            JudgementStatus::Refused => Self::Refused,
            JudgementStatus::Deadline => Self::Deadline,
            JudgementStatus::Unavailable => Self::Unavailable,
            JudgementStatus::InvalidInput => Self::InvalidInput,
        }
    }
}

impl TryFrom<wire::JudgementStatus> for JudgementStatus {
    type Error = Error;
    fn try_from(value: wire::JudgementStatus) -> Result<Self> {
        match value {
            wire::JudgementStatus::Unspecified => Err(unspecified()),
            wire::JudgementStatus::Ok => Ok(Self::Ok),
            wire::JudgementStatus::ParseFailed => Ok(Self::ParseFailed),
            wire::JudgementStatus::Refused => Ok(Self::Refused),
            wire::JudgementStatus::Deadline => Ok(Self::Deadline),
            wire::JudgementStatus::Unavailable => Ok(Self::Unavailable),
            wire::JudgementStatus::InvalidInput => Ok(Self::InvalidInput),
        }
    }
}

impl From<DropReason> for wire::DropReason {
    fn from(value: DropReason) -> Self {
        match value {
            DropReason::Tie => Self::Tie,
            DropReason::Identical => Self::Identical,
            DropReason::JudgementFailed => Self::JudgementFailed,
            DropReason::DeadLetter => Self::DeadLetter,
            DropReason::Stale => Self::Stale,
            DropReason::Filtered => Self::Filtered,
            DropReason::InvalidPrompt => Self::InvalidPrompt,
        }
    }
}

impl TryFrom<wire::DropReason> for DropReason {
    type Error = Error;
    fn try_from(value: wire::DropReason) -> Result<Self> {
        match value {
            wire::DropReason::Unspecified => Err(unspecified()),
            wire::DropReason::Tie => Ok(Self::Tie),
            wire::DropReason::Identical => Ok(Self::Identical),
            wire::DropReason::JudgementFailed => Ok(Self::JudgementFailed),
            wire::DropReason::DeadLetter => Ok(Self::DeadLetter),
            wire::DropReason::Stale => Ok(Self::Stale),
            wire::DropReason::Filtered => Ok(Self::Filtered),
            wire::DropReason::InvalidPrompt => Ok(Self::InvalidPrompt),
        }
    }
}

impl From<ExampleSource> for wire::ExampleSource {
    fn from(value: ExampleSource) -> Self {
        match value {
            ExampleSource::Online => Self::Online,
            ExampleSource::Offline => Self::Offline,
            ExampleSource::Human => Self::Human,
        }
    }
}

impl TryFrom<wire::ExampleSource> for ExampleSource {
    type Error = Error;
    fn try_from(value: wire::ExampleSource) -> Result<Self> {
        match value {
            wire::ExampleSource::Unspecified => Err(unspecified()),
            wire::ExampleSource::Online => Ok(Self::Online),
            wire::ExampleSource::Offline => Ok(Self::Offline),
            wire::ExampleSource::Human => Ok(Self::Human),
        }
    }
}
