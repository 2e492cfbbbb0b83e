//! Core: statements by which SQL engines learn the tables, and views that are easier to ask.
//!
//! Besides the tables: `samples_num` with one numeric value column, and a wide view per device
//! type with one column per metric.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::audit::AuditError;
use crate::head::load_log;
use crate::read::{Reader, text};
use crate::schema::{Kind, Table};
use crate::store::Store;

/// Most metrics that a wide view has columns for; engines refuse far more. The view says how many it
/// leaves out.
const MAX_WIDE_COLUMNS: usize = 500;

/// A SQL engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// DuckDB, over the files.
    Duckdb,
    /// Amazon Athena, over the files with partition projection.
    Athena,
    /// Spark, over the Delta log.
    Spark,
    /// Redshift Spectrum, over the files; partitions are to be added per day.
    Redshift,
    /// Trino's Delta connector.
    Trino,
}

impl Dialect {
    /// Every engine.
    pub const ALL: [Self; 5] = [
        Self::Duckdb,
        Self::Athena,
        Self::Spark,
        Self::Redshift,
        Self::Trino,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duckdb => "duckdb",
            Self::Athena => "athena",
            Self::Spark => "spark",
            Self::Redshift => "redshift",
            Self::Trino => "trino",
        }
    }

    /// The engine of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    const fn type_of(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Redshift, Kind::Text) => "varchar(65535)",
            (Self::Redshift, Kind::Bytes) => "varbyte(65535)",
            (Self::Redshift, Kind::F64) => "double precision",
            (_, Kind::Text) => "string",
            (_, Kind::Bytes) => "binary",
            (_, Kind::I64) => "bigint",
            (_, Kind::I32) => "int",
            (_, Kind::F64) => "double",
            (_, Kind::Bool) => "boolean",
            (_, Kind::Time) => "timestamp",
        }
    }

    /// A name, quoted as the engine wants it.
    fn name_of(self, name: &str) -> String {
        match self {
            Self::Spark => format!("`{}`", name.replace('`', "``")),
            Self::Duckdb | Self::Athena | Self::Redshift | Self::Trino => {
                format!("\"{}\"", name.replace('"', "\"\""))
            }
        }
    }

    const fn double(self) -> &'static str {
        match self {
            Self::Redshift => "double precision",
            Self::Duckdb | Self::Athena | Self::Spark | Self::Trino => "double",
        }
    }

    /// What stands behind `CREATE` for a view; Spectrum's tables allow none that are bound.
    const fn view_end(self) -> &'static str {
        match self {
            Self::Redshift => " WITH NO SCHEMA BINDING",
            Self::Duckdb | Self::Athena | Self::Spark | Self::Trino => "",
        }
    }
}

/// A metric of a device type and the column that holds its values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeMetric {
    /// Type of the devices; `None`: any.
    pub device_type: Option<String>,
    /// The metric.
    pub metric: String,
    /// `value_f64`, `value_i64`, `value_str` or `value_bool`.
    pub column: String,
}

/// Reads which metrics each device type has, from table `metrics`.
///
/// # Errors
/// [`AuditError`] if the table cannot be read.
pub fn type_metrics(store: &dyn Store) -> Result<Vec<TypeMetric>, AuditError> {
    let log = load_log(store, Table::Metrics)?;
    let mut newest: BTreeMap<(Option<String>, String), (i64, String)> = BTreeMap::new();
    log.files::<AuditError>(store, |add| {
        let path = format!("{}/{}", Table::Metrics.name(), add.path);
        let mut reader = Reader::open(store, &path, &["metric", "device_type", "kind", "at"])?;
        while let Some(batch) = reader.next_batch()? {
            let (names, types) = (batch.texts("metric")?, batch.texts("device_type")?);
            let (kinds, times) = (batch.texts("kind")?, batch.times("at")?);
            for row in 0..batch.rows() {
                let key = (
                    text(types, row).map(str::to_owned),
                    names.value(row).to_owned(),
                );
                let new = (times.value(row), kinds.value(row).to_owned());
                let known = newest.entry(key).or_insert_with(|| new.clone());
                if new.0 >= known.0 {
                    *known = new;
                }
            }
        }
        Ok(())
    })?;
    let metric = |((device_type, metric), (_, column))| TypeMetric {
        device_type,
        metric,
        column,
    };
    Ok(newest.into_iter().map(metric).collect())
}

/// All statements for an engine.
///
/// - `location`: root of the lake as the engine names it: a folder, or `s3://bucket/prefix`.
/// - `metrics`: see [`type_metrics`]; each device type becomes a wide view.
#[must_use]
pub fn ddl(dialect: Dialect, location: &str, metrics: &[TypeMetric]) -> String {
    let location = location.trim_end_matches('/').replace('\'', "''");
    let mut out = format!("-- headwater lake at {location}, for {}\n", dialect.name());
    for table in Table::ALL {
        out.push('\n');
        table_statement(&mut out, dialect, &location, table);
    }
    out.push('\n');
    number_view(&mut out, dialect);
    let mut types: BTreeMap<&str, Vec<&TypeMetric>> = BTreeMap::new();
    for metric in metrics {
        let device_type = metric.device_type.as_deref();
        types
            .entry(device_type.unwrap_or_default())
            .or_default()
            .push(metric);
    }
    for (device_type, metrics) in types.iter().filter(|(name, _)| !name.is_empty()) {
        out.push('\n');
        wide_view(&mut out, dialect, device_type, metrics);
    }
    out
}

fn table_statement(out: &mut String, dialect: Dialect, location: &str, table: Table) {
    let name = table.name();
    let columns = |separator: &str| {
        let column = |c: &crate::schema::Column| {
            format!("  {} {}", dialect.name_of(c.name), dialect.type_of(c.kind))
        };
        table
            .columns()
            .iter()
            .map(column)
            .collect::<Vec<_>>()
            .join(separator)
    };
    // Hive's grammar quotes names as Spark does.
    let hive_columns = || columns(",\n").replace('"', "`");
    let files = format!("{location}/{name}/hot/");
    let text = match dialect {
        Dialect::Duckdb => format!(
            "CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet('{files}dt=*/*.parquet', \
             hive_partitioning = true, hive_types = {{'dt': DATE}}, union_by_name = true);\n"
        ),
        Dialect::Athena => format!(
            "CREATE EXTERNAL TABLE {name} (\n{}\n) PARTITIONED BY (dt string)\nSTORED AS PARQUET \
             LOCATION '{files}'\nTBLPROPERTIES (\n  'projection.enabled' = 'true',\n  \
             'projection.dt.type' = 'date',\n  'projection.dt.format' = 'yyyy-MM-dd',\n  \
             'projection.dt.range' = '2020-01-01,NOW+2DAYS',\n  'projection.dt.interval' = '1',\n  \
             'projection.dt.interval.unit' = 'DAYS',\n  \
             'storage.location.template' = '{files}dt=${{dt}}/'\n);\n",
            hive_columns()
        ),
        Dialect::Spark => {
            format!("CREATE TABLE IF NOT EXISTS {name} USING DELTA LOCATION '{location}/{name}';\n")
        }
        Dialect::Redshift => format!(
            "CREATE EXTERNAL TABLE headwater.{name} (\n{}\n) PARTITIONED BY (dt date)\nSTORED AS \
             PARQUET LOCATION '{files}';\n-- once a day: ALTER TABLE headwater.{name} ADD IF NOT \
             EXISTS PARTITION (dt = '2026-01-01') LOCATION '{files}dt=2026-01-01/';\n",
            columns(",\n")
        ),
        Dialect::Trino => format!(
            "CALL delta.system.register_table(schema_name => 'headwater', table_name => '{name}', \
             table_location => '{location}/{name}');\n"
        ),
    };
    out.push_str(&text);
}

fn samples_of(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Redshift => "headwater.samples",
        Dialect::Duckdb | Dialect::Athena | Dialect::Spark | Dialect::Trino => "samples",
    }
}

fn number_view(out: &mut String, dialect: Dialect) {
    let (double, end) = (dialect.double(), dialect.view_end());
    let samples = samples_of(dialect);
    let _ = writeln!(
        out,
        "CREATE OR REPLACE VIEW samples_num AS SELECT *, coalesce(value_f64, cast(value_i64 AS \
         {double}), CASE WHEN value_bool THEN 1.0 WHEN NOT value_bool THEN 0.0 END) AS value_num \
         FROM {samples}{end};"
    );
}

/// One row per device and instant, one column per metric.
fn wide_view(out: &mut String, dialect: Dialect, device_type: &str, metrics: &[&TypeMetric]) {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    let view: String = device_type.chars().map(plain).collect();
    let left_out = metrics.len().saturating_sub(MAX_WIDE_COLUMNS);
    if left_out > 0 {
        let _ = writeln!(
            out,
            "-- wide_{view} leaves out the last {left_out} of {} metrics by name",
            metrics.len()
        );
    }
    let quote = |text: &str| text.replace('\'', "''");
    let samples = samples_of(dialect);
    let _ = write!(
        out,
        "CREATE OR REPLACE VIEW {} AS SELECT device_id, ts, dt",
        dialect.name_of(&format!("wide_{view}"))
    );
    for metric in metrics.iter().take(MAX_WIDE_COLUMNS) {
        // No engine of these orders booleans by max alone.
        let aggregate = if metric.column == "value_bool" {
            "bool_or"
        } else {
            "max"
        };
        let _ = write!(
            out,
            ",\n  {aggregate}(CASE WHEN metric = '{}' THEN {} END) AS {}",
            quote(&metric.metric),
            metric.column,
            dialect.name_of(&metric.metric)
        );
    }
    let _ = writeln!(
        out,
        "\nFROM {samples} WHERE device_type = '{}' GROUP BY device_id, ts, dt{};",
        quote(device_type),
        dialect.view_end()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_names_every_table_and_quotes_what_devices_chose() {
        let metric = TypeMetric {
            device_type: Some("pump's".into()),
            metric: "flow \"in\"; DROP".into(),
            column: "value_f64".into(),
        };
        for dialect in Dialect::ALL {
            let text = ddl(dialect, "/lake/", std::slice::from_ref(&metric));
            for table in Table::ALL {
                assert!(text.contains(&format!("/lake/{}", table.name())), "{text}");
            }
            assert!(text.contains("device_type = 'pump''s'"), "{text}");
            assert!(text.contains("wide_pump_s"), "{text}");
            assert!(!text.contains("AS \"flow \"in\""), "{text}");
            assert_eq!(Dialect::from_name(dialect.name()), Some(dialect));
        }
    }

    #[test]
    fn a_wide_view_says_how_many_metrics_it_leaves_out() {
        let metrics = |count: usize| -> Vec<TypeMetric> {
            let metric = |n| TypeMetric {
                device_type: Some("pump".into()),
                metric: format!("m{n:04}"),
                column: "value_f64".into(),
            };
            (0..count).map(metric).collect()
        };
        let most = ddl(Dialect::Spark, "/lake", &metrics(MAX_WIDE_COLUMNS));
        assert_eq!(most.matches(" END) AS `m").count(), MAX_WIDE_COLUMNS);
        assert!(!most.contains("leaves out"));
        let more = ddl(Dialect::Spark, "/lake", &metrics(MAX_WIDE_COLUMNS + 2));
        assert_eq!(more.matches(" END) AS `m").count(), MAX_WIDE_COLUMNS);
        assert!(more.contains("-- wide_pump leaves out the last 2 of 502 metrics by name\n"));
    }
}
