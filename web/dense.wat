;; out[l, o] = x[l] times w[o] plus b[o]: rows in fours, inputs in fours, float32.
;; Addresses and $stride (of a row of x, and of w) in bytes; $rows and $stride are filled up to fours.
(module
  (memory (import "page" "memory") 1)
  (func (export "dense")
    (param $x i32) (param $w i32) (param $b i32) (param $out i32)
    (param $rows i32) (param $stride i32) (param $outputs i32)
    (local $two i32) (local $three i32) (local $four i32) (local $i i32) (local $o i32)
    (local $at i32) (local $weights i32) (local $width i32)
    (local $weight v128) (local $a v128) (local $c v128) (local $d v128) (local $e v128)
    (local.set $width (i32.shl (local.get $outputs) (i32.const 2)))
    (loop $fours
      (local.set $two (i32.add (local.get $x) (local.get $stride)))
      (local.set $three (i32.add (local.get $two) (local.get $stride)))
      (local.set $four (i32.add (local.get $three) (local.get $stride)))
      (local.set $weights (local.get $w))
      (local.set $at (local.get $out))
      (local.set $o (i32.const 0))
      (loop $columns
        (local.set $a (v128.const i32x4 0 0 0 0))
        (local.set $c (v128.const i32x4 0 0 0 0))
        (local.set $d (v128.const i32x4 0 0 0 0))
        (local.set $e (v128.const i32x4 0 0 0 0))
        (local.set $i (i32.const 0))
        (loop $inputs
          (local.set $weight (v128.load (i32.add (local.get $weights) (local.get $i))))
          (local.set $a (f32x4.add (local.get $a) (f32x4.mul (local.get $weight)
            (v128.load (i32.add (local.get $x) (local.get $i))))))
          (local.set $c (f32x4.add (local.get $c) (f32x4.mul (local.get $weight)
            (v128.load (i32.add (local.get $two) (local.get $i))))))
          (local.set $d (f32x4.add (local.get $d) (f32x4.mul (local.get $weight)
            (v128.load (i32.add (local.get $three) (local.get $i))))))
          (local.set $e (f32x4.add (local.get $e) (f32x4.mul (local.get $weight)
            (v128.load (i32.add (local.get $four) (local.get $i))))))
          (br_if $inputs (i32.lt_u
            (local.tee $i (i32.add (local.get $i) (i32.const 16))) (local.get $stride))))
        ;; the four sums, one a lane
        (local.set $a (f32x4.add
          (i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23 (local.get $a) (local.get $c))
          (i8x16.shuffle 8 9 10 11 24 25 26 27 12 13 14 15 28 29 30 31 (local.get $a) (local.get $c))))
        (local.set $d (f32x4.add
          (i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 20 21 22 23 (local.get $d) (local.get $e))
          (i8x16.shuffle 8 9 10 11 24 25 26 27 12 13 14 15 28 29 30 31 (local.get $d) (local.get $e))))
        (local.set $a (f32x4.add
          (f32x4.add
            (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (local.get $a) (local.get $d))
            (i8x16.shuffle 8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31 (local.get $a) (local.get $d)))
          (v128.load32_splat (i32.add (local.get $b) (i32.shl (local.get $o) (i32.const 2))))))
        (f32.store (local.get $at) (f32x4.extract_lane 0 (local.get $a)))
        (f32.store (i32.add (local.get $at) (local.get $width)) (f32x4.extract_lane 1 (local.get $a)))
        (f32.store (i32.add (local.get $at) (i32.shl (local.get $width) (i32.const 1)))
          (f32x4.extract_lane 2 (local.get $a)))
        (f32.store (i32.add (local.get $at) (i32.mul (local.get $width) (i32.const 3)))
          (f32x4.extract_lane 3 (local.get $a)))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (local.set $weights (i32.add (local.get $weights) (local.get $stride)))
        (br_if $columns (i32.lt_u
          (local.tee $o (i32.add (local.get $o) (i32.const 1))) (local.get $outputs))))
      (local.set $x (i32.add (local.get $four) (local.get $stride)))
      (local.set $out (i32.add (local.get $out) (i32.shl (local.get $width) (i32.const 2))))
      (br_if $fours (i32.gt_s
        (local.tee $rows (i32.sub (local.get $rows) (i32.const 4))) (i32.const 0))))))
