#include "led_by_rank_0.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <c10/util/ScopeExit.h>

#include <exception>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "rank_exchange.h"

namespace titer {
namespace {

using nlohmann::json;

json objective_to_json(const TargetObjective& objective) {
  return {objective.kind, objective.mellowmax_alpha, objective.cw_margin};
}

TargetObjective objective_from_json(const json& value) {
  return {value.at(0).get<TargetObjective::Kind>(), value.at(1).get<double>(), value.at(2).get<double>()};
}

GenerateOptions options_from_json(const json& values) {
  std::vector<OptionAssignment> assignments;
  for (const auto& [name, value] : values.items()) {
    OptionValue option;
    if (value.is_number_integer()) option = value.get<int64_t>();
    if (value.is_number_float()) option = value.get<double>();
    if (value.is_array()) option = value.get<std::vector<std::string>>();
    assignments.push_back({.name = name, .value = std::move(option)});
  }
  GenerateOptions options;
  set_options(options, assignments, "generate");
  return options;
}

/// Rank 0's voice.
class Leader {
 public:
  explicit Leader(const Shard& shard) : shard_(shard) {}

  void tell(json command) {
    command["closed"] = std::exchange(closed_, {});
    from_rank_0(shard_, [&] {
      std::string bytes;
      json::to_cbor(command, bytes);
      return bytes;
    });
  }

  int64_t next_session() { return sessions_++; }
  /// Told with the next command: a session may close while an exception is on its way.
  void close(int64_t session) noexcept { closed_.push_back(session); }

  const Shard& shard() const { return shard_; }

 private:
  const Shard& shard_;
  int64_t sessions_ = 0;
  std::vector<int64_t> closed_;
};

/// A session of rank 0: announces every call, then makes it together with the others.
class LeadingSession final : public Session {
 public:
  LeadingSession(Leader& leader, int64_t id, std::unique_ptr<Session> session)
      : Session(session->prompt()), leader_(leader), id_(id), session_(std::move(session)) {
    session_->set_poll([this] { poll(); });
    cost_ = session_->cost();
  }
  ~LeadingSession() override { leader_.close(id_); }

  void rebase(const at::Tensor& slot_ids) override {
    lead({{"do", "rebase"}}, [&] {
      session_->rebase(slot_ids);
      return 0;
    });
  }

  CandidateScores score(const at::Tensor& candidates, const TargetObjective& objective) override {
    return lead({{"do", "score"}, {"objective", objective_to_json(objective)}},
                [&] { return session_->score(candidates, objective); });
  }

  at::Tensor embedding_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override {
    return lead({{"do", "embedding_gradient"}, {"objective", objective_to_json(objective)}},
                [&] { return session_->embedding_gradient(slot_ids, objective); });
  }

  at::Tensor token_gradient(const at::Tensor& slot_ids, const TargetObjective& objective) override {
    return lead({{"do", "token_gradient"}, {"objective", objective_to_json(objective)}},
                [&] { return session_->token_gradient(slot_ids, objective); });
  }

  at::Tensor promising_tokens(const at::Tensor& gradient, const at::Tensor& allowed, int64_t k) override {
    return count([&] { return session_->promising_tokens(gradient, allowed, k); });
  }

  Generation generate(std::string_view slot_text, const GenerateOptions& options) override {
    return lead({{"do", "generate"}, {"slot", slot_text}, {"options", json::parse(options_to_json(options))}},
                [&] { return session_->generate(slot_text, options); });
  }

 private:
  template <typename Call>
  std::invoke_result_t<Call> lead(json command, const Call& call) {
    command["session"] = id_;
    leader_.tell(std::move(command));
    return count(call);
  }

  /// What a call cost counts even if it fails.
  template <typename Call>
  std::invoke_result_t<Call> count(const Call& call) {
    const auto counted = c10::make_scope_exit([this] { cost_ = session_->cost(); });
    return call();
  }

  Leader& leader_;
  int64_t id_;
  std::unique_ptr<Session> session_;
};

class LeadingSystem final : public System {
 public:
  LeadingSystem(Leader& leader, const System& system) : leader_(leader), system_(system) {}
  Access access() const override { return system_.access(); }
  std::string fingerprint() const override { return system_.fingerprint(); }

  std::unique_ptr<Session> open(const Prompt& prompt, const SessionOptions& options) const override {
    const int64_t id = leader_.next_session();
    leader_.tell({{"do", "open"},
                  {"session", id},
                  {"slot", prompt.slot_text(prompt.slot_ids())},
                  {"batch_size", options.batch_size.value_or(0)}});
    on_all_ranks(leader_.shard(), [] {});  // the others have the prompt
    return std::make_unique<LeadingSession>(
        leader_, id, system_.open(prompt, {.batch_size = options.batch_size, .shard = leader_.shard()}));
  }

 private:
  Leader& leader_;
  const System& system_;
};

/// Another rank: the sessions that rank 0 opened, and the calls that it announced. What is scored and rebased to comes
/// from rank 0 inside the calls.
class Follower {
 public:
  Follower(const Shard& shard, const System& system, const Prompt& prompt, const std::function<void()>& poll)
      : shard_(shard), system_(system), prompt_(prompt), poll_(poll) {}

  void obey(const json& command) {
    const auto& what = command.at("do").get_ref<const std::string&>();
    const auto id = command.at("session").get<int64_t>();
    if (what == "open") {
      open(id, command);
      return;
    }
    Session& session = *sessions_.at(id);
    const at::Tensor from_rank_0;
    if (what == "rebase") session.rebase(from_rank_0);
    if (what == "score") session.score(from_rank_0, objective_from_json(command.at("objective")));
    if (what == "embedding_gradient")
      session.embedding_gradient(from_rank_0, objective_from_json(command.at("objective")));
    if (what == "token_gradient") session.token_gradient(from_rank_0, objective_from_json(command.at("objective")));
    if (what == "generate")
      session.generate(command.at("slot").get_ref<const std::string&>(), options_from_json(command.at("options")));
  }

  void close(int64_t session) { sessions_.erase(session); }

 private:
  void open(int64_t id, const json& command) {
    SessionOptions options{.batch_size = std::nullopt, .shard = shard_};
    if (const auto batch_size = command.at("batch_size").get<int64_t>(); batch_size != 0)
      options.batch_size = batch_size;
    std::optional<Prompt> prompt;
    on_all_ranks(shard_, [&] { prompt = prompt_.with_slot(command.at("slot").get_ref<const std::string&>()); });
    std::unique_ptr<Session> session = system_.open(*prompt, options);
    session->set_poll(poll_);
    sessions_[id] = std::move(session);
  }

  const Shard& shard_;
  const System& system_;
  const Prompt& prompt_;
  const std::function<void()>& poll_;
  std::map<int64_t, std::unique_ptr<Session>> sessions_;
};

std::string lead(const Shard& shard, const System& system, const std::function<std::string(const System&)>& search) {
  Leader leader(shard);
  const LeadingSystem shared(leader, system);
  std::string result;
  try {
    result = search(shared);
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    try {
      leader.tell({{"do", "fail"}, {"message", message_of(failure)}});
    } catch (...) {  // the others are out of reach; what stopped the search says more
    }
    throw;
  }
  leader.tell({{"do", "return"}, {"result", result}});
  return result;
}

std::string follow(const Shard& shard, const System& system, const Prompt& prompt, const std::function<void()>& poll) {
  Follower follower(shard, system, prompt, poll);
  std::exception_ptr failure;  // of the last call, which failed on every rank
  while (true) {
    const json command = json::from_cbor(from_rank_0(shard, {}));
    for (const json& session : command.at("closed")) follower.close(session.get<int64_t>());
    const auto& what = command.at("do").get_ref<const std::string&>();
    if (what == "return") return command.at("result").get<std::string>();
    if (what == "fail") {
      if (poll) poll();  // what interrupted rank 0 may have reached this rank, too
      if (failure) std::rethrow_exception(failure);
      TORCH_CHECK(false, "[shard] rank 0 failed: ", command.at("message").get_ref<const std::string&>());
    }
    failure = nullptr;
    try {
      follower.obey(command);
    } catch (...) {
      failure = std::current_exception();  // rank 0 decides what becomes of it
    }
  }
}

}  // namespace

std::string led_by_rank_0(const Shard& shard, const System& system, const Prompt& prompt,
                          const std::function<void()>& poll, const std::function<std::string(const System&)>& search) {
  return shard.rank == 0 ? lead(shard, system, search) : follow(shard, system, prompt, poll);
}

}  // namespace titer
