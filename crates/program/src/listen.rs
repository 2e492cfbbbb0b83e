//! Listening sockets, and who holds an address that is taken.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::Path;

use tokio::net::TcpListener;

use crate::findings::Findings;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", held(.holder.as_ref()))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Who listens there already, where the system tells.
    pub holder: Option<Holder>,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

fn held(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(", which {holder} holds"))
}

/// Who listens on an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The user that opened the socket.
    pub uid: u32,
    /// Id and name of the process; those of other users are seen by root alone.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((id, name)) => write!(f, "{name} (process {id})"),
            None => write!(f, "a process of user {}", self.uid),
        }
    }
}

/// Protocols whose sockets the kernel lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// The kernel's tables of this protocol's sockets.
    const fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Tcp => ["proc/net/tcp", "proc/net/tcp6"],
            Self::Udp => ["proc/net/udp", "proc/net/udp6"],
        }
    }

    /// The state of a socket that takes what comes: `TCP_LISTEN`, or `TCP_CLOSE` for datagrams,
    /// which know no connection.
    const fn waiting(self) -> &'static str {
        match self {
            Self::Tcp => "0A",
            Self::Udp => "07",
        }
    }
}

/// Listens for connections on `address`; call it inside a tokio runtime.
///
/// # Errors
/// [`ListenError`], which names who holds a taken address.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError {
            address,
            holder: (source.kind() == io::ErrorKind::AddrInUse)
                .then(|| holder(Protocol::Tcp, address))
                .flatten(),
            source,
        })
}

/// Who holds `address`, where the system tells.
#[must_use]
pub fn holder(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    holder_below(Path::new("/"), protocol, address)
}

/// Looks whether `host:port` can be listened on: the name must have an address, and it should be free.
///
/// - `key`, `shown`: the setting and its value, for what is found.
pub fn examine(
    key: &str,
    protocol: Protocol,
    (host, port): (&str, u16),
    shown: &str,
    found: &mut Findings,
) {
    let address = match (host, port).to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => address,
        // The configuration's own check has named this fault.
        _ if host.is_empty() => return,
        Ok(None) => return found.fault(key, shown, "the name has no address"),
        Err(error) => return found.fault(key, shown, &error),
    };
    let tried = match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(address).map(|_| ()),
        Protocol::Udp => UdpSocket::bind(address).map(|_| ()),
    };
    match tried {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let who = holder(protocol, address)
                .map_or_else(|| "somebody".to_owned(), |holder| holder.to_string());
            let why = format!("{who} holds it now; nobody else can listen there meanwhile");
            found.warn(key, shown, &why);
        }
        Err(error) => found.fault(key, shown, &error),
    }
}

/// Whether somebody listens on the unix socket that was bound as `path`.
#[must_use]
pub fn is_served(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut sockets = table.lines().filter_map(served_socket);
    path.to_str()
        .is_some_and(|path| sockets.any(|served| served == path))
}

/// The path in a line of `/proc/net/unix`, unless nobody listens on it.
fn served_socket(line: &str) -> Option<&str> {
    /// `__SO_ACCEPTCON`.
    const LISTENS: u32 = 0x1_0000;
    let flags = line.split_whitespace().nth(3)?;
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let path = line.get(line.find(" /")? + 1..)?;
    (flags & LISTENS != 0).then_some(path)
}

fn holder_below(root: &Path, protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let socket = protocol.tables().into_iter().find_map(|table| {
        let table = fs::read_to_string(root.join(table)).ok()?;
        table
            .lines()
            .filter_map(|line| waiting_socket(line, protocol))
            .find(|socket| collide(socket.address, address))
    })?;
    Some(Holder {
        uid: socket.uid,
        process: process_with(root, socket.inode),
    })
}

/// One line of a table of sockets.
struct Socket {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

/// Reads a line of proc(5)'s `/proc/net/tcp` or one of its like; `None` for the heading and for
/// sockets that do not wait for peers.
fn waiting_socket(line: &str, protocol: Protocol) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let (ip, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    let uid = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    (state == protocol.waiting()).then_some(Socket {
        address,
        uid,
        inode,
    })
}

/// An address as the kernel prints it: words of 32 bits in this machine's byte order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Whether one of the two keeps the other from being listened on: a socket for every address of a
/// machine holds them all.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let all = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && (all || a.ip().to_canonical() == b.ip().to_canonical())
}

/// The process that has the socket of `inode` open.
fn process_with(root: &Path, inode: u64) -> Option<(u32, String)> {
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir(root.join("proc")).ok()?.flatten();
    processes
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse::<u32>().ok()?,
                entry.path(),
            ))
        })
        .find(|(_, folder)| {
            let files = fs::read_dir(folder.join("fd")).into_iter().flatten();
            files
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&socket)))
        })
        .map(|(id, folder)| {
            let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            (id, name.trim_end().to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn a_taken_address_is_named_with_the_process_that_holds_it() {
        for taken in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(other) = std::net::TcpListener::bind(taken) else {
                // A machine without IPv6 has no such address to take.
                continue;
            };
            let address = other.local_addr().unwrap();
            let ours = match address.ip() {
                IpAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], address.port())),
                IpAddr::V6(_) => address,
            };
            let told = chain(&runtime().block_on(tcp(ours)).unwrap_err());
            let me = std::process::id();
            assert!(
                told.starts_with(&format!("cannot listen on {ours}, which "))
                    && told.contains(&format!(" (process {me}) holds: Address already in use")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_socket_of_datagrams_is_found_too() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let found = holder(Protocol::Udp, address).unwrap();
        assert_eq!(found.process.unwrap().0, std::process::id());
        drop(other);
        assert_eq!(holder(Protocol::Udp, address), None);
    }

    #[test]
    fn the_process_of_another_user_is_told_by_its_user() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        // As this machine's kernel would write 127.0.0.1.
        let ip = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
             0: {ip:08X}:075B 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  7 0 4 1\n   \
             1: {ip:08X}:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  104 0 5 1\n"
        );
        fs::write(root.path().join("proc/net/tcp"), table).unwrap();
        let at = |port| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            holder_below(root.path(), Protocol::Tcp, address)
        };
        let found = at(1883).unwrap();
        assert_eq!(found.to_string(), "a process of user 104");
        assert_eq!(at(1884), None);
    }

    #[test]
    fn an_address_for_all_collides_with_each_and_others_with_their_like() {
        let collide = |a: &str, b: &str| super::collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(collide("0.0.0.0:1", "127.0.0.1:1"));
        assert!(collide("127.0.0.1:1", "[::]:1"));
        assert!(collide("[::ffff:127.0.0.1]:1", "127.0.0.1:1"));
        assert!(!collide("127.0.0.2:1", "127.0.0.1:1"));
        assert!(!collide("0.0.0.0:1", "127.0.0.1:2"));
    }

    #[test]
    fn a_line_that_is_no_socket_is_passed_over() {
        for line in [
            "",
            "0:",
            "0: x",
            "0: 0100007F:ZZ a 0A b c d e f 1",
            "0: 01:1 a 0A b c d 1 0 1",
        ] {
            assert!(waiting_socket(line, Protocol::Tcp).is_none(), "{line}");
        }
    }
}
