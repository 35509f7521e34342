//! The key-value store through which ranks find each other: c10d's TCPStore.

use std::{
    ffi::{CString, c_void},
    net::SocketAddr,
    ptr::null_mut,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result, ffi};

/// Time between two looks at a key.
const POLL: Duration = Duration::from_millis(5);

/// A handle on the store. The server lives as long as the handle that serves it, so a supervisor holds that one and outlives any rank.
#[derive(Debug)]
pub struct Store {
    pub(crate) raw: *mut c_void,
    address: SocketAddr,
}

// SAFETY: c10d's TCPStore takes a lock around every operation on its socket, and the handle is freed once, by its owner.
unsafe impl Send for Store {}
// SAFETY: as above; no operation of this face blocks for longer than one exchange with the server.
unsafe impl Sync for Store {}

/// Makes a C string of a key.
fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Key { key: text.to_owned() })
}

impl Store {
    /// Serves a store at an address, port 0 for a free one, and connects to it.
    ///
    /// # Errors
    /// [`Error::Cpp`] if the port is taken or `timeout` is over.
    pub fn serve(address: SocketAddr, timeout: Duration) -> Result<Self> {
        Self::open(address, true, timeout)
    }

    /// Connects to a store, trying until `timeout` is over.
    ///
    /// # Errors
    /// [`Error::Cpp`] if nobody serves it.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self> {
        Self::open(address, false, timeout)
    }

    fn open(address: SocketAddr, serve: bool, timeout: Duration) -> Result<Self> {
        let (host, mut port, mut raw) = (c_string(&address.ip().to_string())?, address.port(), null_mut());
        let timeout = milliseconds(timeout);
        // SAFETY: the host outlives the call; `port` and `raw` have room for what it writes.
        let message = unsafe { ffi::joust_store_open(host.as_ptr(), &mut port, serve, timeout, &mut raw) };
        ffi::check("open a store", message)?;
        Ok(Self { raw, address: SocketAddr::new(address.ip(), port) })
    }

    /// Returns where the store is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::Cpp`] if the server is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_string(key)?;
        // SAFETY: key and value outlive the call, which copies them.
        ffi::check("set", unsafe { ffi::joust_store_set(self.raw, key.as_ptr(), value.as_ptr(), value.len() as i64) })
    }

    /// Reads a value that is there.
    ///
    /// # Errors
    /// [`Error::Cpp`] if the server is gone.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        extern "C" fn take(into: *mut c_void, value: *const u8, length: i64) {
            let Some(length) = usize::try_from(length).ok().filter(|length| *length > 0) else { return };
            // SAFETY: C++ calls this once, while `get` waits for it, with the vector of that call and with a value of this length.
            unsafe { (*into.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(value, length)) }
        }
        let key = c_string(key)?;
        let (mut present, mut value) = (false, Vec::new());
        // SAFETY: the key outlives both calls, `present` and `value` are alive and ours alone while they run.
        unsafe {
            ffi::check("check", ffi::joust_store_check(self.raw, key.as_ptr(), &mut present))?;
            if present {
                let into = (&raw mut value).cast();
                ffi::check("get", ffi::joust_store_get(self.raw, key.as_ptr(), into, take))?;
            }
        }
        Ok(present.then_some(value))
    }

    /// Waits for a value.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not come in time, [`Error::Cpp`] if the server is gone.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = self.get(key)? {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout { operation: "wait for a key", seconds: timeout.as_secs_f64() });
            }
            thread::sleep(POLL);
        }
    }

    /// Adds to a number, which begins as 0, and returns the sum: of many callers each sees another one.
    ///
    /// # Errors
    /// [`Error::Cpp`] if the server is gone.
    pub fn add(&self, key: &str, by: i64) -> Result<i64> {
        let (key, mut sum) = (c_string(key)?, 0);
        // SAFETY: the key outlives the call and `sum` has room for the number.
        ffi::check("add", unsafe { ffi::joust_store_add(self.raw, key.as_ptr(), by, &mut sum) })?;
        Ok(sum)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and is not used after this.
        unsafe { ffi::joust_store_free(self.raw) }
    }
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}
