//! General-purpose compression around a format, in the container that each ships in.
//!
//! gzip 6 (miniz_oxide, flate2's default) with its header and checksum; zstd frames with content size
//! and without checksum, as zstd writes them unless told otherwise; with a dictionary also without magic
//! number and dictionary number, which both ends know; LZ4 frames (lz4_flex's defaults).

use std::io::{Read as _, Write as _};

use anyhow::{Context, anyhow};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, ErrorCode, get_error_name};

use super::{Codec, Format};
use crate::table::{Batch, Table};

/// What every zstd frame begins with.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// A format within a compressor.
pub(super) struct Wrapped<F, C> {
    format: F,
    compressor: C,
    plain: Vec<u8>,
}

impl<F, C> Wrapped<F, C> {
    pub(super) fn new(format: F, compressor: C) -> Self {
        Self {
            format,
            compressor,
            plain: Vec::new(),
        }
    }
}

/// Bytes to fewer bytes, and back.
pub(super) trait Compressor {
    /// Replaces what `out` holds.
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()>;
    /// Replaces what `plain` holds.
    fn decompress(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> anyhow::Result<()>;
    /// Memory of a C library that Rust's allocator does not see: (compressing, decompressing).
    fn hidden_bytes(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl<F: Format, C: Compressor> Codec for Wrapped<F, C> {
    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> anyhow::Result<()> {
        self.plain.clear();
        self.format
            .write(&batch.table, &mut self.plain)
            .context("cannot write")?;
        self.compressor
            .compress(&self.plain, out)
            .context("cannot compress")
    }

    fn decode(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()> {
        self.compressor
            .decompress(bytes, &mut self.plain)
            .context("cannot decompress")?;
        table.clear();
        self.format.read(&self.plain, table).context("cannot read")
    }

    fn hidden_bytes(&self) -> (usize, usize) {
        self.compressor.hidden_bytes()
    }
}

pub(super) struct Gzip;

impl Compressor for Gzip {
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        let mut encoder = GzEncoder::new(out, Compression::new(6));
        encoder.write_all(plain)?;
        encoder.finish()?;
        Ok(())
    }

    fn decompress(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> anyhow::Result<()> {
        plain.clear();
        GzDecoder::new(bytes).read_to_end(plain)?;
        Ok(())
    }
}

pub(super) struct Lz4;

impl Compressor for Lz4 {
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        let mut encoder = FrameEncoder::new(out);
        encoder.write_all(plain)?;
        encoder.finish()?;
        Ok(())
    }

    fn decompress(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> anyhow::Result<()> {
        plain.clear();
        FrameDecoder::new(bytes).read_to_end(plain)?;
        Ok(())
    }
}

/// zstd with contexts that live from batch to batch.
pub(super) struct Zstd {
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    /// With a dictionary, frames travel without the magic number.
    bare: bool,
    framed: Vec<u8>,
}

impl Zstd {
    pub(super) fn new(level: i32) -> anyhow::Result<Self> {
        let mut compressor = CCtx::create();
        compressor
            .set_parameter(CParameter::CompressionLevel(level))
            .map_err(failed)?;
        Ok(Self {
            compressor,
            decompressor: DCtx::create(),
            bare: false,
            framed: Vec::new(),
        })
    }

    pub(super) fn with_dictionary(level: i32, dictionary: &[u8]) -> anyhow::Result<Self> {
        let mut this = Self::new(level)?;
        this.bare = true;
        this.compressor
            .set_parameter(CParameter::DictIdFlag(false))
            .map_err(failed)?;
        this.compressor
            .load_dictionary(dictionary)
            .map_err(failed)?;
        this.decompressor
            .load_dictionary(dictionary)
            .map_err(failed)?;
        Ok(this)
    }
}

fn failed(code: ErrorCode) -> anyhow::Error {
    anyhow!("zstd: {}", get_error_name(code))
}

impl Compressor for Zstd {
    fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        out.clear();
        out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress2(out, plain).map_err(failed)?;
        if self.bare {
            out.drain(..MAGIC.len());
        }
        Ok(())
    }

    fn decompress(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> anyhow::Result<()> {
        let mut frame = bytes;
        if self.bare {
            self.framed.clear();
            self.framed.extend(MAGIC);
            self.framed.extend_from_slice(bytes);
            frame = &self.framed;
        }
        let len = zstd::zstd_safe::get_frame_content_size(frame)
            .map_err(|_| anyhow!("no zstd frame"))?
            .context("no content size")?;
        plain.clear();
        plain.reserve(usize::try_from(len)?);
        self.decompressor.decompress(plain, frame).map_err(failed)?;
        Ok(())
    }

    fn hidden_bytes(&self) -> (usize, usize) {
        (self.compressor.sizeof(), self.decompressor.sizeof())
    }
}
