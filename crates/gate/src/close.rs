//! Core: why a connection ends. Every end has a name, a counter and, in MQTT 5, a reason code.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $code:expr;)*) => {
        /// Why a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseReason { $($(#[$doc])* $name,)* }

        impl CloseReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason code of the DISCONNECT that an MQTT 5 client gets, if it gets one.
            #[must_use]
            pub const fn v5_code(self) -> Option<u8> {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// The client said DISCONNECT.
    Orderly = "orderly", None;
    /// The peer closed the stream without a DISCONNECT.
    PeerGone = "peer_gone", None;
    /// Reading or writing failed.
    Io = "io", None;
    /// No complete CONNECT in time.
    ConnectTimeout = "connect_timeout", None;
    /// The first packet was not a CONNECT, or a second CONNECT came.
    ConnectOrder = "connect_order", Some(0x82);
    /// Bytes that are not MQTT.
    Malformed = "malformed", Some(0x81);
    /// A packet that this side of the protocol never sends, or not now.
    Protocol = "protocol", Some(0x82);
    /// A packet above the announced size.
    TooLarge = "too_large", Some(0x95);
    /// Neither MQTT 3.1.1 nor 5.
    Version = "version", None;
    /// The client id is empty where it must not be, too long, reserved or has `+ $ # /`.
    ClientId = "client_id", None;
    /// The identity was refused.
    Identity = "identity", None;
    /// The session store failed.
    Store = "store", None;
    /// QoS 2, which the gate does not speak.
    Qos2 = "qos2", Some(0x9B);
    /// A publish on a topic that this client may not write.
    Forbidden = "forbidden", Some(0x87);
    /// An MQTT 5 client sent more unacknowledged publishes than Receive Maximum.
    ReceiveMaximum = "receive_maximum", Some(0x93);
    /// The unacknowledged publishes stayed at their cap, or the owner took nothing, for too long.
    Unacked = "unacked", Some(0x89);
    /// Nothing came for 1.5 times the keep-alive.
    KeepAlive = "keep_alive", Some(0x8D);
    /// Keep-alive 0, and nothing came within the gate's own limit.
    Idle = "idle", Some(0x98);
    /// The client did not read for too long, or too much waited for it.
    SlowReader = "slow_reader", None;
    /// A newer connection took the client id.
    Takeover = "takeover", Some(0x8E);
    /// The journal is full or its disk failed: no PUBACK, no error code, only the end.
    Journal = "journal", Some(0x89);
    /// The owner no longer wants this client: it was revoked.
    Revoked = "revoked", Some(0x98);
    /// The gate is stopping.
    Stopping = "stopping", Some(0x8B);
}

impl CloseReason {
    /// Whether the operator hears of it in the log: something was refused to a client, which cannot say so
    /// itself or repeats it for ever. The others are the ways of networks and of this program, or are told
    /// where they are decided.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        match self {
            Self::ConnectTimeout
            | Self::ConnectOrder
            | Self::Malformed
            | Self::Protocol
            | Self::TooLarge
            | Self::Version
            | Self::ClientId
            | Self::Identity
            | Self::Qos2
            | Self::Forbidden
            | Self::ReceiveMaximum
            | Self::Unacked
            | Self::SlowReader => true,
            Self::Orderly
            | Self::PeerGone
            | Self::Io
            | Self::KeepAlive
            | Self::Idle
            | Self::Takeover
            | Self::Store
            | Self::Journal
            | Self::Revoked
            | Self::Stopping => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name() {
        for (number, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(
                CloseReason::ALL
                    .iter()
                    .filter(|r| r.name() == reason.name())
                    .count(),
                1
            );
        }
    }
}
