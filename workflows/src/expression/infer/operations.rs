//! Operators: which go together with what, told as the evaluator has it.

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};

use super::super::kinds::{self, Kind, Kinds};
use super::super::types::Type;
use super::{Walk, hints, text_of};

impl Walk<'_> {
    pub(super) fn call(&mut self, part: &IdedExpr, call: &CallExpr) -> Type {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.must_be_bool(part, "? :", condition);
                let yes = self.visit(yes);
                yes.or(self.visit(no))
            }
            (name @ (operators::LOGICAL_AND | operators::LOGICAL_OR), [left, right]) => {
                self.must_be_bool(part, symbol(name), left);
                self.must_be_bool(part, symbol(name), right);
                Type::Bool
            }
            (operators::LOGICAL_NOT, [operand]) => {
                self.must_be_bool(part, "!", operand);
                Type::Bool
            }
            (operators::NEGATE, [operand]) => self.negated(part, operand),
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                self.equality(part, call, left, right)
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => self.order(part, left, right),
            (operators::IN, [item, container]) => self.within(part, item, container),
            (
                operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO,
                [left, right],
            ) => self.arithmetic(part, &call.func_name, left, right),
            _ => self.function(part, call),
        }
    }

    fn must_be_bool(&mut self, part: &IdedExpr, operator: &str, operand: &IdedExpr) {
        let found = self.visit(operand);
        if found.kinds().has(Kind::Bool) {
            return;
        }
        let is = found.describe();
        let message = format!("`{operator}` needs true or false, but `{}` is {is}", self.text(operand));
        let hint = hints::wanted(&self.text(operand), &Type::Bool, &found);
        // Of `!x` the whole is as short as the part.
        let place = if operator == "!" { self.spans.whole(part) } else { self.spans.whole(operand) };
        self.report("type", place, message, hint);
    }

    fn negated(&mut self, part: &IdedExpr, operand: &IdedExpr) -> Type {
        let found = self.visit(operand);
        let negates = Kinds::of(&[Kind::Int, Kind::Double]);
        if found.kinds().meets(negates) {
            return if found.kinds().is_one() { found } else { Type::Number };
        }
        let message =
            format!("`-` needs a number with a sign, but `{}` is {}", self.text(operand), found.describe());
        let hint = (found == Type::Uint).then(|| format!("write -int({})", self.text(operand)));
        self.report("type", self.spans.whole(part), message, hint)
    }

    fn equality(&mut self, part: &IdedExpr, call: &CallExpr, left: &IdedExpr, right: &IdedExpr) -> Type {
        let (one, another) = (self.visit(left), self.visit(right));
        if !one.may_equal(&another) {
            let never = if call.func_name == operators::EQUALS { "never" } else { "always" };
            let message = format!(
                "`{}` is {never} true: it compares {} with {}",
                self.text(part),
                one.describe(),
                another.describe()
            );
            let hint = self.meant(left, &one, right, &another);
            self.report("type", self.spans.whole(part), message, hint);
        } else {
            self.word(&one, left, right);
            self.word(&another, right, left);
        }
        Type::Bool
    }

    /// A constant that is compared with `what`, which is one of a few words, must be one of them.
    fn word(&mut self, of: &Type, what: &IdedExpr, constant: &IdedExpr) {
        if let (Type::Word(words), Some(text)) = (of, text_of(constant))
            && !words.contains(&text)
        {
            let hint = hints::names(text, words.iter().copied());
            let message = format!("`{}` is never `{}`", self.text(what), super::shorten(text));
            self.report("unknown-word", self.spans.whole(constant), message, hint);
        }
    }

    fn order(&mut self, part: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Type {
        let (one, another) = (self.visit(left), self.visit(right));
        let have_order = one.kinds().iter().any(|a| another.kinds().iter().any(|b| kinds::has_order(a, b)));
        if !have_order {
            let message = format!(
                "`{}` compares {} with {}, which have no order",
                self.text(part),
                one.describe(),
                another.describe()
            );
            let hint = self.meant(left, &one, right, &another);
            self.report("type", self.spans.whole(part), message, hint);
        }
        Type::Bool
    }

    fn within(&mut self, part: &IdedExpr, item: &IdedExpr, container: &IdedExpr) -> Type {
        let (inner, outer) = (self.visit(item), self.visit(container));
        if !outer.kinds().meets(Kinds::CONTAINER) {
            let message = format!(
                "`in` looks into a list or an object, but `{}` is {}",
                self.text(container),
                outer.describe()
            );
            let is_text = outer.kinds().has(Kind::String) && inner.kinds().has(Kind::String);
            let hint =
                is_text.then(|| format!("write {}.contains({})", self.text(container), self.text(item)));
            self.report("type", self.spans.whole(container), message, hint);
        } else if let Some(why) = never_within(&inner, &outer) {
            let message = format!("`{}` is never true: {why}", self.text(part));
            self.report("type", self.spans.whole(part), message, None);
        } else if let Type::List(element) = &outer {
            self.words_within(&inner, element, item, container);
        }
        Type::Bool
    }

    fn words_within(&mut self, inner: &Type, element: &Type, item: &IdedExpr, container: &IdedExpr) {
        self.word(element, container, item);
        if let Expr::List(list) = &container.expr {
            list.elements.iter().for_each(|constant| self.word(inner, item, constant));
        }
    }

    fn arithmetic(&mut self, part: &IdedExpr, operator: &str, left: &IdedExpr, right: &IdedExpr) -> Type {
        self.is_dashed = false;
        let one = self.visit(left);
        if self.is_dashed && operator == operators::SUBSTRACT {
            return Type::Dyn;
        }
        let another = self.visit(right);
        if let (Type::List(these), Type::List(those)) = (&one, &another)
            && operator == operators::ADD
        {
            return Type::list(these.as_ref().clone().or(those.as_ref().clone()));
        }
        let (ones, others) = (one.kinds(), another.kinds());
        let results =
            ones.iter().flat_map(|a| others.iter().filter_map(move |b| kinds::arithmetic(operator, a, b)));
        let results = results.fold(Kinds::NONE, |all, kind| all.and(Kinds::one(kind)));
        if results != Kinds::NONE {
            return Type::of(results);
        }
        let message = format!(
            "`{}`: `{}` cannot be applied to {} and {}",
            self.text(part),
            symbol(operator),
            one.describe(),
            another.describe()
        );
        let hint = self.mixed(operator, (left, &one), (right, &another));
        let joined =
            || if operator == operators::ADD { self.joined(left, &one, right, &another) } else { None };
        let hint = hint.or_else(joined).or_else(|| self.meant(left, &one, right, &another));
        self.report("type", self.spans.whole(part), message, hint)
    }

    /// `n * 0.5`: how two numbers of different kinds are made one kind.
    fn mixed(&self, operator: &str, left: (&IdedExpr, &Type), right: (&IdedExpr, &Type)) -> Option<String> {
        let whole = Kinds::one(Kind::Int);
        let (ones, others) = (left.1.kinds(), right.1.kinds());
        let are_numbers = ones.and(others).within(Kinds::NUMBER);
        if !are_numbers || !ones.is_one() || !others.is_one() {
            return None;
        }
        let has_fraction = ones.and(others).has(Kind::Double);
        // The whole one gives way to the one with a fraction, but for `%`, which knows no fractions.
        let is_modulo = operator == operators::MODULO;
        let to = Kinds::one(if has_fraction && !is_modulo { Kind::Double } else { Kind::Int });
        let written = |(part, of): (&IdedExpr, &Type)| {
            let text = self.text(part);
            let is_constant = of.kinds() == whole && text.bytes().all(|b| b.is_ascii_digit());
            if of.kinds() == to {
                text
            } else if to == whole {
                format!("int({text})")
            } else if is_constant {
                format!("{text}.0")
            } else {
                format!("double({text})")
            }
        };
        let why = match has_fraction && is_modulo {
            true => "`%` is for whole numbers",
            false => "numbers of different kinds are not mixed",
        };
        Some(format!("{why}: write {} {} {}", written(left), symbol(operator), written(right)))
    }

    /// `"v" + 3`: how a text and something else become one text.
    fn joined(&self, left: &IdedExpr, one: &Type, right: &IdedExpr, another: &Type) -> Option<String> {
        let text = Kinds::one(Kind::String);
        let other = if one.kinds() == text && another.kinds() != text {
            (right, another)
        } else if another.kinds() == text && one.kinds() != text {
            (left, one)
        } else {
            return None;
        };
        let converts = kinds::signatures("string").iter().any(|way| way.takes[0].meets(other.1.kinds()));
        (converts && text_of(left).or(text_of(right)).is_none_or(|constant| constant.parse::<f64>().is_err()))
            .then(|| format!("write string({})", self.text(other.0)))
    }

    /// How two parts that do not go together were probably meant.
    fn meant(&self, left: &IdedExpr, one: &Type, right: &IdedExpr, another: &Type) -> Option<String> {
        self.converted(left, one, another).or_else(|| self.converted(right, another, one))
    }

    /// How `part` becomes one of `wanted`, seen that it stands beside it.
    fn converted(&self, part: &IdedExpr, of: &Type, wanted: &Type) -> Option<String> {
        let text = self.text(part);
        let wants = wanted.kinds();
        let is_text = of.kinds() == Kinds::one(Kind::String);
        if let Some(constant) = text_of(part) {
            let is_number = wants.within(Kinds::NUMBER) && constant.parse::<f64>().is_ok();
            let is_bool = wants == Kinds::one(Kind::Bool) && matches!(constant, "true" | "false");
            if is_number || is_bool {
                return Some(format!("write {constant} without quotes"));
            }
        }
        if is_text && wants == Kinds::one(Kind::Timestamp) {
            return Some(format!("write timestamp({text})"));
        }
        if is_text && wants == Kinds::one(Kind::Duration) {
            return Some(format!("write duration({text})"));
        }
        if is_text && wants.within(Kinds::NUMBER) && text_of(part).is_none() {
            return Some(format!("if that text is a number, write double({text})"));
        }
        None
    }
}

/// Why a container can never hold something.
fn never_within(inner: &Type, outer: &Type) -> Option<String> {
    if let Type::List(element) = outer {
        let message =
            || format!("it looks for {} in a list where each is {}", inner.describe(), element.describe());
        return (!inner.may_equal(element)).then(message);
    }
    let has_names = matches!(outer, Type::Map(_) | Type::Record(_));
    (has_names && !inner.kinds().has(Kind::String))
        .then(|| format!("it looks for {} among names, which are text", inner.describe()))
}

/// How an operator is written.
fn symbol(operator: &str) -> &str {
    operator.trim_matches('_').trim_start_matches('@')
}
