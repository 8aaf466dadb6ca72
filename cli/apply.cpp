#include "cli/apply.h"

#include <array>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/deadline.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/console.h"

namespace cli {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

constexpr std::array<std::pair<std::string_view, StepState>, 4> kinds = {{
    {"step-started", StepState::Running},
    {"step-done", StepState::Done},
    {"step-failed", StepState::Failed},
    {"step-skipped", StepState::Skipped},
}};

std::string note_text(const planner::Note& note) {
  return note.address.empty() ? note.text : fmt::format("{}: {}", note.address, note.text);
}

std::vector<std::string> texts_of(const json& message, const char* key) {
  std::vector<std::string> texts;
  if (const auto list = message.find(key); list != message.end() && list->is_array())
    for (const json& text : *list)
      if (text.is_string()) texts.push_back(text.get<std::string>());
  return texts;
}

}  // namespace

ApplyReader::ApplyReader(Show show) : show_(show), view_(progress_style()) {}

Result<> ApplyReader::take(std::string_view line) {
  const json message = TRY_DURING(base::parse_json(line), "understand the daemon");
  const std::string type = base::json_string_or(message, "type", "");
  if (type == "plan") return take_plan(message);
  if (type == "progress") return take_progress(message);
  if (type != "result")
    return base::fail(ErrorCode::InvalidState,
                      "the daemon sent a line of type '{}'; is it of another version?",
                      base::escape_controls(type));
  has_result_ = true;
  applied_.ids = texts_of(message, "ids");
  applied_.names = texts_of(message, "names");
  applied_.reclaimed_bytes = base::json_int_or(message, "reclaimed_bytes", 0);
  if (!base::json_bool_or(message, "success", false))
    applied_.problem =
        base::Error(base::error_code_from_name(base::json_string_or(message, "code", "")),
                    base::json_string_or(message, "message", "the plan failed"));
  return {};
}

Result<> ApplyReader::take_plan(const json& line) {
  const auto plan = line.find("plan");
  if (plan == line.end())
    return base::fail(ErrorCode::InvalidState, "the daemon sent a plan line without a plan");
  applied_.plan = TRY_DURING(planner::plan_from_json(*plan), "understand the daemon's plan");
  if (show_ < Show::StepsAndNotes) return {};
  for (const planner::Note& note : applied_.plan.notes) tell_warning(note_text(note));
  if (show_ == Show::All && applied_.plan.steps.empty())
    tell(printable(planner::render_text(applied_.plan)));
  return {};
}

Result<> ApplyReader::take_progress(const json& line) {
  const std::string kind = base::json_string_or(line, "kind", "");
  const int64_t number = base::json_int_or(line, "step", 0);
  if (number < 0 || number > UINT32_MAX)
    return base::fail(ErrorCode::InvalidState, "the daemon sent a step of number {}", number);
  const auto step = static_cast<uint32_t>(number);
  if (kind == "step-done") applied_.done.insert(step);
  if (show_ == Show::Nothing) return {};
  for (const auto& [name, state] : kinds)
    if (kind == name)
      tell(view_.update(step, state, base::json_string_or(line, "text", ""),
                        base::boottime_ns() / 1'000'000));
  return {};
}

void ApplyReader::resize() {
  const TerminalSize size = terminal_size();
  view_.resize(size.columns, size.rows);
}

void ApplyReader::hide() { tell(view_.hide()); }
void ApplyReader::show() { tell(view_.show()); }

Result<Applied> ApplyReader::finish() {
  if (show_ != Show::Nothing) tell(view_.finish());
  if (!has_result_)
    return base::fail(ErrorCode::Io,
                      "the daemon went away before it was done; `container system status` tells "
                      "whether it runs; when it runs again it finishes what it had begun");
  return std::move(applied_);
}

Request apply_request(const json& command) {
  Request request;
  request.method = "POST";
  request.target = "/v1/apply";
  request.body = base::dump_json(command);
  request.silence_ms_max = -1;  // A plan takes as long as its steps, each of which has a deadline.
  return request;
}

Result<Applied> apply(const Context& context, const json& command, Show show) {
  ApplyReader reader(show);
  LineSplitter splitter;
  const Result<> heard = context.client.stream(apply_request(command), [&](std::string_view bytes) {
    return splitter.feed(bytes, [&](const std::string& line) { return reader.take(line); });
  });
  Result<Applied> applied = reader.finish();
  if (!heard && !applied) return tl::unexpected<base::Error>(heard.error());
  return applied;
}

Result<Applied> apply_all(const Context& context, const json& command, Show show) {
  Applied applied = TRY(apply(context, command, show));
  if (applied.problem) return tl::unexpected<base::Error>(std::move(*applied.problem));
  return applied;
}

std::string owner_text(std::string_view command, std::string_view what) {
  if (what.empty()) return fmt::format("{} by pid {}", command, ::getpid());
  return fmt::format("{} of '{}' by pid {}", command, what, ::getpid());
}

}  // namespace cli
