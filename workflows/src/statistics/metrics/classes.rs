//! Metrics of answers that name a class: how often which class was taken for which.

use super::super::{Flaw, as_long, enough, finite};
use super::{Weights, quotient};

/// The weights of what was what (the confusion matrix). Of two classes, 1 is the positive one.
#[derive(Clone, Debug, PartialEq)]
pub struct Confusion {
    classes: usize,
    /// By class and answer: `classes` rows of as many answers.
    weights: Vec<f64>,
}

impl Confusion {
    /// More classes than these are not told apart: the table grows with their square.
    pub const CLASSES_MAX: usize = 2000;

    /// Of labels and answers, each the number of a class below `classes`.
    ///
    /// # Errors
    /// [`Flaw::TooFew`] without a row or with fewer than two classes, [`Flaw::TooMany`] classes, [`Flaw::Lengths`],
    /// [`Flaw::Outside`] for a number that is no class, what is wrong with the weights.
    pub fn of(classes: usize, labels: &[u32], answers: &[u32], by: Weights<'_>) -> Result<Self, Flaw> {
        enough("classes", classes, 2)?;
        if classes > Self::CLASSES_MAX {
            let most = Self::CLASSES_MAX as u64;
            return Err(Flaw::TooMany { what: "classes", found: classes as u64, most });
        }
        enough("examples", labels.len(), 1)?;
        as_long("the answers", answers.len(), labels.len())?;
        by.check(labels.len())?;
        let mut weights = vec![0.0; classes * classes];
        for (row, (label, answer)) in labels.iter().zip(answers).enumerate() {
            for class in [*label, *answer] {
                super::within("a class", f64::from(class), 0.0, classes as f64 - 1.0)?;
            }
            weights[*label as usize * classes + *answer as usize] += by.of(row);
        }
        finite("the sum of the weights", weights.iter().sum())?;
        Ok(Self { classes, weights })
    }

    /// Of two classes: whether each example is positive and whether it was taken for positive.
    ///
    /// # Errors
    /// Those of [`Confusion::of`].
    pub fn of_two(positive: &[bool], answers: &[bool], by: Weights<'_>) -> Result<Self, Flaw> {
        let number = |flags: &[bool]| flags.iter().map(|flag| u32::from(*flag)).collect::<Vec<_>>();
        Self::of(2, &number(positive), &number(answers), by)
    }

    fn labelled(&self, class: usize) -> f64 {
        self.weights[class * self.classes..][..self.classes].iter().sum()
    }

    fn answered(&self, class: usize) -> f64 {
        (0..self.classes).map(|label| self.weights[label * self.classes + class]).sum()
    }

    fn right(&self, class: usize) -> f64 {
        self.weights[class * self.classes + class]
    }

    fn class(&self, class: u32) -> Result<usize, Flaw> {
        super::within("a class", f64::from(class), 0.0, self.classes as f64 - 1.0)?;
        Ok(class as usize)
    }

    /// How many classes it tells apart.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The share of right answers.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when all weights are 0.
    pub fn accuracy(&self) -> Result<f64, Flaw> {
        let right = (0..self.classes).map(|class| self.right(class)).sum();
        quotient("accuracy", right, self.weights.iter().sum(), "all weights are 0")
    }

    /// The mean of the recalls of the classes that occur among the labels, as scikit-learn has it.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when only one class occurs, of which the mean would be its recall alone.
    pub fn balanced_accuracy(&self) -> Result<f64, Flaw> {
        let recalls = (0..self.classes).filter(|class| self.labelled(*class) > 0.0);
        let recalls: Vec<f64> = recalls.map(|class| self.right(class) / self.labelled(class)).collect();
        if recalls.len() < 2 {
            let why = "there are not two classes among the labels";
            return Err(Flaw::Undefined { what: "balanced accuracy", why });
        }
        Ok(recalls.iter().sum::<f64>() / recalls.len() as f64)
    }

    /// Of the examples taken for this class, the share that is.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when no example is taken for it, [`Flaw::Outside`] when there is no such class.
    pub fn precision(&self, class: u32) -> Result<f64, Flaw> {
        let class = self.class(class)?;
        quotient("precision", self.right(class), self.answered(class), "no example is taken for the class")
    }

    /// Of the examples of this class, the share that is found.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when no example is of it, [`Flaw::Outside`] when there is no such class.
    pub fn recall(&self, class: u32) -> Result<f64, Flaw> {
        let class = self.class(class)?;
        quotient("recall", self.right(class), self.labelled(class), "no example is of the class")
    }

    /// The harmonic mean of precision and recall, 2·TP/(2·TP + FP + FN): 0 when no example of the class is found, also where
    /// precision has no value.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when no example is of the class or taken for it, [`Flaw::Outside`] when there is no such class.
    pub fn f1(&self, class: u32) -> Result<f64, Flaw> {
        let class = self.class(class)?;
        let either = self.labelled(class) + self.answered(class);
        quotient("f1", 2.0 * self.right(class), either, "no example is of the class or taken for it")
    }

    /// The mean over the classes of what each of them has ("macro"): `confusion.mean(Confusion::recall)`.
    ///
    /// # Errors
    /// [`Flaw::Undefined`] when it is not defined for one of them.
    pub fn mean(&self, of: impl Fn(&Self, u32) -> Result<f64, Flaw>) -> Result<f64, Flaw> {
        let mut sum = 0.0;
        for class in 0..self.classes {
            // There are at most `CLASSES_MAX`.
            sum += of(self, u32::try_from(class).unwrap_or(u32::MAX))?;
        }
        Ok(sum / self.classes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::close;
    use super::*;

    const LABELS: [u32; 10] = [0, 1, 2, 2, 1, 0, 2, 1, 0, 2];
    const ANSWERS: [u32; 10] = [0, 2, 2, 2, 1, 1, 0, 1, 0, 2];
    const WEIGHTS: [f64; 10] = [1.0, 2.0, 0.5, 1.5, 1.0, 3.0, 1.0, 2.0, 0.25, 1.0];

    /// scikit-learn 1.9.1: `accuracy_score`, `balanced_accuracy_score`, and `precision_score`, `recall_score` and `f1_score` with
    /// `average="macro"`, without and with `sample_weight`.
    #[test]
    fn several_classes_agree_with_scikit_learn() {
        for (weights, expected) in [(Weights::Equal, PLAIN), (Weights::Of(&WEIGHTS), WEIGHTED)] {
            let confusion = Confusion::of(3, &LABELS, &ANSWERS, weights).unwrap();
            let found = [
                confusion.accuracy(),
                confusion.balanced_accuracy(),
                confusion.mean(Confusion::precision),
                confusion.mean(Confusion::recall),
                confusion.mean(Confusion::f1),
            ];
            found
                .into_iter()
                .zip(expected)
                .for_each(|(found, expected)| close(found.unwrap(), expected, 1e-14));
        }
    }

    /// The same of class 1 against the others.
    #[test]
    fn two_classes_agree_with_scikit_learn() {
        let is_one = |classes: &[u32]| classes.iter().map(|class| *class == 1).collect::<Vec<_>>();
        let (labels, answers) = (is_one(&LABELS), is_one(&ANSWERS));
        for (weights, expected) in [(Weights::Equal, TWO_PLAIN), (Weights::Of(&WEIGHTS), TWO_WEIGHTED)] {
            let confusion = Confusion::of_two(&labels, &answers, weights).unwrap();
            let found = [
                confusion.accuracy(),
                confusion.balanced_accuracy(),
                confusion.precision(1),
                confusion.recall(1),
                confusion.f1(1),
            ];
            found
                .into_iter()
                .zip(expected)
                .for_each(|(found, expected)| close(found.unwrap(), expected, 1e-14));
        }
    }

    const PLAIN: [f64; 5] =
        [0.7, 0.6944444444444443, 0.6944444444444443, 0.6944444444444443, 0.6944444444444443];
    const WEIGHTED: [f64; 5] =
        [0.5471698113207547, 0.5480392156862745, 0.5518518518518518, 0.5480392156862745, 0.5322455322455322];
    const TWO_PLAIN: [f64; 5] =
        [0.8, 0.7619047619047619, 0.6666666666666666, 0.6666666666666666, 0.6666666666666666];
    const TWO_WEIGHTED: [f64; 5] = [0.6226415094339622, 0.6181818181818182, 0.5, 0.6, 0.5454545454545454];

    #[test]
    fn what_is_not_defined_has_no_value() {
        let none = Confusion::of_two(&[false, false], &[false, false], Weights::Equal).unwrap();
        assert_eq!(none.accuracy(), Ok(1.0));
        for undefined in [none.precision(1), none.recall(1), none.f1(1), none.balanced_accuracy()] {
            assert!(matches!(undefined, Err(Flaw::Undefined { .. })), "{undefined:?}");
        }
        let missed = Confusion::of_two(&[true, false], &[false, false], Weights::Equal).unwrap();
        assert_eq!((missed.recall(1), missed.f1(1)), (Ok(0.0), Ok(0.0)));
        assert!(matches!(missed.mean(Confusion::precision), Err(Flaw::Undefined { .. })));
        assert!(matches!(missed.recall(2), Err(Flaw::Outside { .. })));
        let weightless = Confusion::of_two(&[true], &[true], Weights::Times(&[0])).unwrap();
        assert!(matches!(weightless.accuracy(), Err(Flaw::Undefined { .. })));
    }

    #[test]
    fn labels_that_are_none_are_refused() {
        assert!(matches!(Confusion::of(2, &[], &[], Weights::Equal), Err(Flaw::TooFew { .. })));
        assert!(matches!(Confusion::of(1, &[0], &[0], Weights::Equal), Err(Flaw::TooFew { .. })));
        assert!(matches!(Confusion::of(2001, &[0], &[0], Weights::Equal), Err(Flaw::TooMany { .. })));
        assert!(matches!(Confusion::of(2, &[0, 1], &[0], Weights::Equal), Err(Flaw::Lengths { .. })));
        assert!(matches!(Confusion::of(2, &[0], &[2], Weights::Equal), Err(Flaw::Outside { .. })));
    }
}
