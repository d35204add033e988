// What can be had of a database that RocksDB does not open, or not all of: decision 0036.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/sst_file_reader.h>
#include <rocksdb/write_batch.h>

#include "storage/database.h"
#include "storage/files.h"
#include "storage/warnings_logger.h"

namespace tensorforge::storage {
namespace {

/// In each family of a repaired log: no key of ours.
constexpr const char* kFamilyKey = "family";

/// "000012.sst": 12; 0: not of a table or a log.
std::uint64_t number_of(std::string_view name) {
  std::uint64_t number = 0;
  std::from_chars(name.data(), name.data() + name.size(), number);
  return number;
}

/// RepairDB leaves out what it cannot read, and says so in a warning alone. What is damaged goes on to `warnings`,
/// without what it says each time. But a disk that fails, or is full, has lost nothing: kUnavailable.
absl::Status judge_warnings(const std::vector<std::string>& told, std::vector<std::string>* warnings) {
  for (const std::string& warning : told) {
    const bool is_missing = warning.find("No such file") != std::string::npos;
    if (!is_missing && warning.find("IO error") != std::string::npos) return absl::UnavailableError(warning);
    if (warning.find("Corruption") != std::string::npos) warnings->push_back(warning);
  }
  return absl::OkStatus();
}

/// Damage goes into `warnings`; anything else is an error.
absl::Status tell_damage(const absl::Status& status, std::vector<std::string>* warnings) {
  if (status.ok() || absl::IsUnavailable(status)) return status;
  warnings->emplace_back(status.message());
  return absl::OkStatus();
}

/// Puts what can be read of `from` into a family of `to`, where that has no such key.
absl::Status add_missing(rocksdb::Iterator& from, rocksdb::DB& to, rocksdb::ColumnFamilyHandle* family,
                         std::vector<std::string>* warnings) {
  constexpr std::size_t kBatchBytes = std::size_t{4} << 20U;
  rocksdb::WriteBatch batch = protected_batch();
  rocksdb::Status status;
  std::string value;
  for (from.SeekToFirst(); status.ok() && from.Valid(); from.Next()) {
    if (from.key() == kFamilyKey) continue;
    status = to.Get({}, family, from.key(), &value);
    if (status.IsNotFound()) status = batch.Put(family, from.key(), from.value());
    if (status.ok() && batch.GetDataSize() >= kBatchBytes) {
      status = to.Write(synced_write(), &batch);
      batch.Clear();
    }
  }
  if (status.ok()) status = to.Write(synced_write(), &batch);
  if (!status.ok()) return to_status(status, "write what can be read");
  return tell_damage(to_status(from.status(), "read"), warnings);
}

}  // namespace

Result<std::unique_ptr<Database>> Database::create_empty(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                         const std::string& path) {
  std::unique_ptr<Database> database(new Database(files));
  rocksdb::DBOptions options = database->options();
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.info_log = std::make_shared<WarningsLogger>();
  rocksdb::DB* db = nullptr;
  const rocksdb::Status created = rocksdb::DB::Open(options, path, descriptors(), &database->handles_, &db);
  database->db_.reset(db);
  if (!created.ok()) return to_status(created, fmt::format("create {}", path));
  return database;
}

absl::Status Database::add_family_tables(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& path) {
  const std::string aside = path + "/families";
  {
    const Result<std::unique_ptr<Database>> empty = create_empty(files, aside);
    if (!empty.ok()) return empty.status();
    rocksdb::Status status;
    for (rocksdb::ColumnFamilyHandle* family : (*empty)->handles_) {
      if (status.ok()) status = (*empty)->db_->Put({}, family, kFamilyKey, "");
      if (status.ok()) status = (*empty)->db_->Flush({}, family);
    }
    if (!status.ok()) return to_status(status, fmt::format("make tables in {}", aside));
  }
  Result<std::vector<std::string>> names = list_directory(*files, path);
  if (!names.ok()) return names.status();
  std::uint64_t number = 0;
  for (const std::string& name : *names) number = std::max(number, number_of(name));
  names = list_directory(*files, aside);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!name.ends_with(".sst")) continue;
    const std::string to = fmt::format("{}/{:06}.sst", path, ++number);
    if (absl::Status status = rename_file(*files, fmt::format("{}/{}", aside, name), to); !status.ok()) return status;
  }
  return remove_directory(*files, aside);
}

Result<std::unique_ptr<Database>> Database::repair_log(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                       const std::string& path, std::vector<std::string>* warnings) {
  if (absl::Status status = add_family_tables(files, path); !status.ok()) return status;
  const Database described(files);
  rocksdb::DBOptions options = described.options();
  const auto logger = std::make_shared<WarningsLogger>();
  options.info_log = logger;
  const rocksdb::Status repaired = rocksdb::RepairDB(path, options, descriptors());
  std::vector<std::string> told;
  logger->take(&told);
  if (absl::Status disk = judge_warnings(told, warnings); !disk.ok()) return disk;
  if (!repaired.ok()) return to_status(repaired, fmt::format("repair {}", path));
  return open_read_only(files, path);
}

absl::Status Database::add_log(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& path,
                               std::vector<std::string>* warnings) {
  const Result<std::unique_ptr<Database>> log = repair_log(files, path, warnings);
  if (!log.ok()) return tell_damage(log.status(), warnings);
  for (std::size_t family = 0; family < kFamilies; ++family) {
    const std::unique_ptr<rocksdb::Iterator> from((*log)->db_->NewIterator({}, (*log)->handles_[family]));
    if (absl::Status status = add_missing(*from, *db_, handles_[family], warnings); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Database::add_table(const std::string& path, std::vector<std::string>* warnings) {
  rocksdb::Options options;
  options.env = env_.get();
  rocksdb::SstFileReader table(options);
  const rocksdb::Status opened = table.Open(path);
  if (!opened.ok()) return tell_damage(to_status(opened, fmt::format("open {}", path)), warnings);
  const std::shared_ptr<const rocksdb::TableProperties> properties = table.GetTableProperties();
  const auto family = std::find_if(handles_.begin(), handles_.end(), [&](const auto* each) {
    return properties && each->GetName() == properties->column_family_name;
  });
  if (family == handles_.end()) return absl::OkStatus();
  const std::unique_ptr<rocksdb::Iterator> from(table.NewIterator({}));
  return add_missing(*from, *db_, *family, warnings);
}

absl::Status Database::repair(const std::shared_ptr<rocksdb::FileSystem>& files, const std::string& path,
                              std::vector<std::string>* warnings) {
  const Result<std::unique_ptr<Database>> created = create_empty(files, path);
  if (!created.ok()) return created.status();
  Database& repaired = **created;

  // No key twice. A log that was left over may hold what a torn tail made void, a table never does; of each the newest
  // comes first.
  Result<std::vector<std::string>> names = list_directory(*files, path + kToRepair);
  if (!names.ok()) return names.status();
  std::sort(names->begin(), names->end(),
            [](const std::string& a, const std::string& b) { return number_of(a) < number_of(b); });
  for (const bool logs : {false, true}) {
    for (auto name = names->rbegin(); name != names->rend(); ++name) {
      if (name->ends_with(".log") != logs) continue;
      const std::string one = fmt::format("{}{}/{}", path, kToRepair, *name);
      absl::Status added = logs ? repaired.add_log(files, one, warnings) : repaired.add_table(one, warnings);
      if (!added.ok()) return added;
    }
  }
  return repaired.close();
}

}  // namespace tensorforge::storage
