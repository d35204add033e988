#include "tests/storage/log_fixture.h"

#include <random>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "storage/bytes.h"
#include "storage/crc32c.h"

namespace tensorforge::storage {

std::string record_text(Sequence sequence, std::size_t size) {
  std::string text = fmt::format("record {} ", sequence);
  std::mt19937_64 random(sequence);
  while (text.size() < size) {
    const std::uint64_t bytes = random();
    text.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  }
  text.resize(size);
  return text;
}

Group make_group(const TreeHead& head, std::size_t commands, std::size_t record_size) {
  Group group;
  group.first = head.sequence + 1;
  group.incarnation = head.incarnation;
  for (std::size_t i = 0; i < commands; ++i) group.add({record_text(group.first + i, record_size)});
  return group;
}

std::map<std::string, std::string> bytes_in(const std::filesystem::path& directory) {
  std::map<std::string, std::string> all;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    all[entry.path().filename()] = read_bytes(entry.path());
  }
  return all;
}

std::string with_valid_checksum(std::string chunk) {
  put_little(&chunk[28], std::uint32_t{0});
  put_little(&chunk[28], crc32c(chunk));
  return chunk;
}

Served::Served(const OpenOptions& options) {
  Result<OpenedDirectory> opened = open_data_directory(options);
  opening_ = opened.status();
  if (!opened.ok()) return;
  opened_ = *std::move(opened);
  const TreeHead end = opened_.journal->durable_head();
  durable_ = end.sequence;
  Journal::Callbacks callbacks;
  callbacks.synced = [this](Sequence, std::size_t groups) {
    const std::lock_guard lock(mutex_);
    groups_synced_ += groups;
    changed_.notify_all();
  };
  callbacks.durable = [this](Sequence last) {
    const std::lock_guard lock(mutex_);
    durable_ = last;
    changed_.notify_all();
  };
  callbacks.failed = [this](absl::Status why) {
    const std::lock_guard lock(mutex_);
    failed_ = std::move(why);
    ++failures_;
    changed_.notify_all();
  };
  opened_.journal->start(std::move(callbacks));
}

Served::~Served() {
  if (opened_.journal) opened_.journal->close().IgnoreError();
}

Result<Sequence> Served::append(Group group) {
  const Sequence last = group.last();
  std::unique_lock lock(mutex_);
  const std::size_t awaited = groups_synced_ + 1;
  lock.unlock();
  opened_.journal->submit(std::move(group));
  lock.lock();
  const auto acknowledged = [&] { return groups_synced_ == awaited && durable_ >= last; };
  changed_.wait(lock, [&] { return failed_ || acknowledged(); });
  if (!acknowledged()) return *failed_;
  return last;
}

absl::Status Served::append_each(std::size_t groups, std::size_t record_size) {
  for (std::size_t i = 0; i < groups; ++i) {
    const Result<Sequence> appended = append(make_group(end(), 1, record_size));
    if (!appended.ok()) return appended.status();
  }
  return absl::OkStatus();
}

TreeHead Served::end() const { return opened_.journal->durable_head(); }

absl::Status Served::failure() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failed_.has_value(); });
  return *failed_;
}

std::size_t Served::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

std::vector<std::string> all_records(const Log& log) {
  std::vector<std::string> all;
  const Sequence end = log.durable_head().sequence;
  while (all.size() < end) {
    Result<Records> records = log.read(all.size() + 1, 1'000, 1U << 20U);
    if (!records.ok() || records->records.empty()) {
      ADD_FAILURE() << "read " << all.size() + 1 << ": " << records.status();
      return all;
    }
    for (std::string& record : records->records) all.push_back(std::move(record));
  }
  return all;
}

}  // namespace tensorforge::storage
